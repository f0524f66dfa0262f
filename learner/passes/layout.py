"""Layouts: the tensors of one forward pass, and the positions at which to read its hidden states.

All states of an episode are prefixes of one token sequence. One pass of a causal model over the episode, with the fresh
actions as branches, therefore gives the values and log-probabilities of all turns (`PackedEncoder`). An episode of
several segments (`Episode.state_start`) is one sequence for each segment, so that a layout may have more rows than
`Row`s. Other models read each state and each action as a separate sequence (`SeparateEncoder`). Both encoders return a
`Layout` with the same points, and on a causal model both give the same values (tests/learner/test_learner_layout.py).

A sample is one (row, turn) pair. `samples` in a shape is the number of samples of all rows, in order. Fresh actions
belong to states (`Row.states`), which are the samples' own and, where a row bootstraps, the one after its last turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from learner.passes.masks import Tree
from learner.passes.rows import Row

Part = Literal["state", "action", "next_state", "next_states", "fresh", "observation", "privileged"]


class Points(NamedTuple):
    """Positions in [rows, length] at which hidden states are read: two long tensors of the same shape."""

    row: Tensor
    column: Tensor


class Predictions(NamedTuple):
    """Tokens of actions, observations or privileged texts, and the positions that predict them: five long tensors.

    All are [tokens]. An observation's token belongs to no sample alone: its `sample` is the first one of its row, its
    `action` is 0. The tokens of a privileged text are predicted at the last token of each sample's state.
    """

    row: Tensor
    column: Tensor  # the position whose output is the distribution of the token
    token: Tensor
    sample: Tensor  # the sample, or for fresh actions the state, that the token belongs to
    action: Tensor  # the index of the fresh action at its state; 0 for the action of the data


@dataclass
class Layout:
    """The tensors of one forward pass.

    Attributes:
        input_ids, position_ids: long [rows, length].
        structure: the tree of a packed pass; for separate sequences bool [rows, length], false at pads.
        points: position of the last token of each part, [samples]; for "fresh" [states, most actions], where a state
            with fewer actions repeats its last one; for "next_states" [samples, horizon]. "action_state" and
            "fresh_state" are those of the states in which these actions are written, in the same shapes.
        predictions: the tokens of "action", "fresh", "observation" and "privileged", in packed layouts only.
    """

    input_ids: Tensor
    position_ids: Tensor
    structure: Tree | Tensor
    points: dict[str, Points] = field(default_factory=dict)
    predictions: dict[str, Predictions] = field(default_factory=dict)

    def to(self, device: torch.device) -> Layout:
        """Return the same layout on `device`."""
        if self.input_ids.device == device:
            return self
        return Layout(
            self.input_ids.to(device),
            self.position_ids.to(device),
            self.structure.to(device),
            {k: Points(*(t.to(device) for t in v)) for k, v in self.points.items()},
            {k: Predictions(*(t.to(device) for t in v)) for k, v in self.predictions.items()},
        )

    @property
    def packed(self) -> bool:
        """Whether this is the layout of a packed pass."""
        return isinstance(self.structure, Tree)


class Encoder(Protocol):
    """Turns rows into layouts for one kind of backbone."""

    def encode(self, rows: Sequence[Row], parts: Sequence[Part], horizon: int = 1) -> Layout:
        """Return a layout of `rows` in which `parts` can be read.

        Args:
            horizon: number of turns from a sample's state to its "next_state" (n of n-step targets), cut at the end of
                the episode. "next_states" are the states after 1 to `horizon` turns. "action" and both of these need a
                horizon of at least 1. "observation" is every token of the trunk, up to the last part that it holds,
                that is no action's and has a token before it.
        """
