"""Layouts: how rows become the tensors of one forward pass, and where in them to read.

All states of an episode are prefixes of one token sequence, so a causal model needs one pass over the episode,
with fresh actions as branches, to give every value and log-probability of all turns (`PackedEncoder`). An encoder
reads each state and each action as a sequence of its own (`SeparateEncoder`). Both give a `Layout`, and what
reads it can't tell them apart; on a causal model they agree (tests/learner/test_learner_layout.py).

A sample is one (row, turn) pair; `samples` is their number over the rows of a layout, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from transformers import PreTrainedModel

from learner.passes.attention import Tree, packed_mask
from learner.passes.rows import Row

Part = Literal["state", "action", "next_state", "next_states", "fresh"]


class Points(NamedTuple):
    """Positions in [rows, length] to read a hidden state at: two long tensors of one shape."""

    row: Tensor
    column: Tensor


class Predictions(NamedTuple):
    """Action tokens and the positions that predict them, each [tokens]."""

    row: Tensor  # long
    column: Tensor  # long, the position whose output is the distribution of the token
    token: Tensor  # long
    sample: Tensor  # long, which sample the token belongs to
    action: Tensor  # long, which of the sample's fresh actions; 0 for the action of the data


@dataclass
class Layout:
    """Tensors of one forward pass.

    Attributes:
        input_ids, position_ids: long [rows, length].
        structure: of a packed causal pass its tree; of separate sequences bool [rows, length], token is not a pad.
        points: for each part, where its last token is read: [samples], for "fresh" [samples, n].
        predictions: for "action" and "fresh", the tokens of these actions (packed layouts only).
    """

    input_ids: Tensor
    position_ids: Tensor
    structure: Tree | Tensor
    points: dict[str, Points] = field(default_factory=dict)
    predictions: dict[str, Predictions] = field(default_factory=dict)

    def to(self, device: torch.device) -> Layout:
        """The same layout on `device`."""
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
        """Whether this is a packed causal pass."""
        return isinstance(self.structure, Tree)

    def mask(self, model: PreTrainedModel) -> Tensor | BlockMask:
        """What `model` takes as `attention_mask`: of a packed pass in the form that its attention needs."""
        if isinstance(self.structure, Tree):
            return packed_mask(self.structure, model.config._attn_implementation, model.dtype)
        return self.structure.long()


class Encoder(Protocol):
    """Builds layouts for one kind of backbone."""

    def encode(self, rows: Sequence[Row], parts: Sequence[Part], horizon: int = 1) -> Layout:
        """Lay out `rows` so that `parts` can be read.

        Args:
            horizon: turns from a sample's state to its "next_state" (n of n-step targets), cut at the end of
                the episode. "action" and "next_state" need a horizon of at least 1. "next_states" are the states
                after 1 to `horizon` turns, [samples, horizon].
        """
        ...
