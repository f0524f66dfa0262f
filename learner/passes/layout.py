"""Layouts: how rows become the tensors of one forward pass, and where in them to read.

All states of an episode are prefixes of one token sequence, so a causal model needs one pass over the episode,
with fresh actions as branches, to give every value and log-probability of all turns (`PackedEncoder`). An encoder
reads each state and each action as a sequence of its own (`SeparateEncoder`). Both give a `Layout`, and what
reads it can't tell them apart; on a causal model they agree (tests/learner/test_learner_layout.py).

A sample is one (row, turn) pair; `samples` is their number over the rows of a layout, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import numpy as np
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


class PackedEncoder:
    """One sequence per row: the episode as trunk, then each fresh action as a branch.

    A branch sees the trunk up to its own state and itself; its positions go on from that state. The branches of all
    rows begin in one column, after the longest trunk.
    """

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def encode(self, rows: Sequence[Row], parts: Sequence[Part], horizon: int = 1) -> Layout:
        if horizon < 1 and {"action", "next_state", "next_states"} & set(parts):
            raise ValueError(f"a horizon of {horizon} ends the trunk at the states; {parts} need one of at least 1")
        samples = _Samples.of(rows, horizon)
        trunks = np.zeros(len(rows), dtype=np.int64)
        np.maximum.at(trunks, samples.row, samples.ahead)
        trunk = int(trunks.max())
        fresh = _Fresh.of(rows, samples, trunk) if "fresh" in parts else None
        shape = (len(rows), trunk if fresh is None else max(trunk, fresh.length))
        ids = np.full(shape, self.pad_token_id, dtype=np.int64)
        # Pads of a trunk count on, so that transformers sees one sequence in each row.
        position = np.tile(np.arange(shape[1]), (len(rows), 1))
        branch = np.full(shape, -1, dtype=np.int32)
        sees = np.zeros(shape, dtype=np.int32)
        for index, row in enumerate(rows):
            n = trunks[index]
            ids[index, :n] = row.tokens[:n]
            branch[index, :n] = 0
            sees[index, :n] = np.arange(1, n + 1)
        if fresh is not None:
            at = (fresh.row, fresh.column)
            ids[at], position[at], branch[at], sees[at] = fresh.token, fresh.position, fresh.branch, fresh.state
        points = samples.points(parts)
        predictions = {}
        if "action" in parts:
            predictions["action"] = samples.actions(ids)
        if fresh is not None:
            points["fresh"] = fresh.points
            predictions["fresh"] = fresh.predictions()
        tree = Tree(torch.from_numpy(branch), torch.from_numpy(sees), trunk)
        return Layout(torch.from_numpy(ids), torch.from_numpy(position), tree, points, predictions)


class _Samples(NamedTuple):
    """The samples of all rows, in order. All int64, [samples] where nothing else is said."""

    row: np.ndarray
    state: np.ndarray  # number of tokens of the state
    action: np.ndarray  # and with the action
    path: np.ndarray  # [samples, horizon], and of the states 1 to `horizon` turns later

    @classmethod
    def of(cls, rows: Sequence[Row], horizon: int) -> _Samples:
        state, action, path = [], [], []
        steps = np.arange(1, horizon + 1)
        for row in rows:
            bounds = np.append(row.action_start, len(row.tokens))
            state.append(row.action_start[row.turns])
            action.append(row.action_end[row.turns])
            path.append(bounds[np.minimum(row.turns[:, None] + steps, len(row.action_start))])
        index = np.repeat(np.arange(len(rows)), [len(row.turns) for row in rows])
        return cls(index, *(np.concatenate(found).astype(np.int64) for found in (state, action, path)))

    @property
    def ahead(self) -> np.ndarray:
        """Number of tokens that the horizon takes in: [samples]."""
        return self.path[:, -1] if self.path.shape[1] else self.state

    def points(self, parts: Sequence[Part]) -> dict[str, Points]:
        ends = {"state": self.state, "action": self.action, "next_state": self.ahead, "next_states": self.path}
        found = {}
        for part in parts:
            if part in ends:
                column = torch.from_numpy(ends[part] - 1)
                row = torch.from_numpy(self.row)
                found[str(part)] = Points(row if column.dim() == 1 else row.unsqueeze(1).expand_as(column), column)
        return found

    def actions(self, ids: np.ndarray) -> Predictions:
        """The tokens of the data's actions; `ids` is [rows, length]."""
        lengths = self.action - self.state
        sample = np.repeat(np.arange(len(lengths)), lengths)
        row, column = self.row[sample], self.state[sample] - 1 + _within(lengths)
        return _predictions(row, column, ids[row, column + 1], sample, np.zeros_like(sample))


class _Fresh(NamedTuple):
    """The tokens of all fresh actions, in order. All int64 [tokens] but the points."""

    row: np.ndarray
    column: np.ndarray
    token: np.ndarray
    position: np.ndarray
    branch: np.ndarray
    state: np.ndarray  # number of tokens of the state
    sample: np.ndarray
    action: np.ndarray
    points: Points  # [samples, actions]

    @classmethod
    def of(cls, rows: Sequence[Row], samples: _Samples, trunk: int) -> _Fresh:
        per_sample = len(rows[0].fresh[0])
        texts = [text for row in rows for actions in row.fresh for text in actions]
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        # Per action: its row, its place among the row's actions, and the column behind its last token.
        row = np.repeat(samples.row, per_sample)
        state = np.repeat(samples.state, per_sample)
        first = np.searchsorted(row, row)
        end = np.cumsum(lengths)
        end += trunk - (end - lengths)[first]
        last = np.where(lengths > 0, end, state) - 1
        of = np.repeat(np.arange(len(texts)), lengths)
        within = _within(lengths)
        shape = (len(samples.row), per_sample)
        return cls(
            row[of],
            (end - lengths)[of] + within,
            np.concatenate(texts).astype(np.int64),
            state[of] + within,
            (np.arange(len(texts)) - first + 1)[of],
            state[of],
            of // per_sample,
            of % per_sample,
            Points(torch.from_numpy(row.reshape(shape)), torch.from_numpy(last.reshape(shape))),
        )

    @property
    def length(self) -> int:
        """Columns that trunks and branches fill."""
        return int(self.column.max()) + 1 if len(self.column) else 0

    def predictions(self) -> Predictions:
        # The first token of a branch is predicted where its state ends.
        column = np.where(self.position == self.state, self.state, self.column) - 1
        return _predictions(self.row, column, self.token, self.sample, self.action)


def _within(lengths: np.ndarray) -> np.ndarray:
    """0, 1, ... of each of the pieces: int64 [sum of `lengths`]."""
    ends = np.cumsum(lengths)
    return np.arange(lengths.sum()) - np.repeat(ends - lengths, lengths)


def _predictions(*columns: np.ndarray) -> Predictions:
    return Predictions(*map(torch.from_numpy, columns))


class SeparateEncoder:
    """One sequence for each state and each state with an action: for encoders, and to check packing by.

    Args:
        pad_token_id: fills the end of short sequences.
        translate: int64 [policy vocabulary], the backbone's id of each token of the policy; or what makes the
            backbone's ids [any length] of the policy's [length]; None keeps ids.
        prefix, suffix: ids put around each sequence (an encoder's start and end marks).
        read_first: read at the first token (an encoder's start mark) instead of the last.
        max_tokens: longest sequence; of longer ones the last tokens are kept.
    """

    def __init__(
        self,
        pad_token_id: int,
        *,
        translate: np.ndarray | Callable[[np.ndarray], np.ndarray] | None = None,
        prefix: Sequence[int] = (),
        suffix: Sequence[int] = (),
        read_first: bool = False,
        max_tokens: int | None = None,
    ) -> None:
        self.pad_token_id = pad_token_id
        self.translate = translate
        self.prefix = np.asarray(prefix, dtype=np.int64)
        self.suffix = np.asarray(suffix, dtype=np.int64)
        self.read_first = read_first
        self.max_tokens = max_tokens

    def _sequence(self, tokens: np.ndarray) -> np.ndarray:
        if self.translate is None:
            tokens = tokens.astype(np.int64)
        else:
            tokens = self.translate(tokens) if callable(self.translate) else self.translate[tokens]
        if self.max_tokens is not None:
            room = self.max_tokens - len(self.prefix) - len(self.suffix)
            tokens = tokens[-room:]
        return np.concatenate((self.prefix, tokens, self.suffix))

    def encode(self, rows: Sequence[Row], parts: Sequence[Part], horizon: int = 1) -> Layout:
        sequences: list[np.ndarray] = []
        found: dict[Part, list[int]] = {part: [] for part in parts}

        def add(part: Part, tokens: np.ndarray) -> None:
            if part in found:
                found[part].append(len(sequences))
                sequences.append(self._sequence(tokens))

        for row in rows:
            last = len(row.action_start)
            for sample, turn in enumerate(map(int, row.turns)):
                state = row.tokens[: row.state_end(turn)]
                add("state", state)
                add("action", row.tokens[: int(row.action_end[turn])])
                add("next_state", row.tokens[: row.state_end(min(turn + horizon, last))])
                for ahead in range(1, horizon + 1):
                    add("next_states", row.tokens[: row.state_end(min(turn + ahead, last))])
                if "fresh" in found:
                    for tokens in row.fresh[sample]:
                        add("fresh", np.concatenate((state, tokens)))
        lengths = np.array([len(sequence) for sequence in sequences])
        shape = (len(sequences), int(lengths.max()))
        ids = np.full(shape, self.pad_token_id, dtype=np.int64)
        for index, sequence in enumerate(sequences):
            ids[index, : len(sequence)] = sequence
        column = torch.from_numpy(np.zeros_like(lengths) if self.read_first else lengths - 1)
        points = {}
        for part, indices in found.items():
            at = torch.tensor(indices, dtype=torch.long)
            if part == "fresh":
                at = at.view(-1, len(rows[0].fresh[0]))
            elif part == "next_states":
                at = at.view(-1, horizon)
            points[str(part)] = Points(at, column[at])
        position = torch.arange(shape[1]).expand(shape)
        mask = torch.arange(shape[1]) < torch.from_numpy(lengths).unsqueeze(1)
        return Layout(torch.from_numpy(ids), position, mask, points)
