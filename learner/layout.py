"""Layouts: how rows become the tensors of one forward pass, and where in them to read.

All states of an episode are prefixes of one token sequence, so a causal model needs one pass over the episode,
with fresh actions as branches, to give every value and log-probability of all turns (`PackedEncoder`). An encoder
reads each state and each action as a sequence of its own (`SeparateEncoder`). Both give a `Layout`, and what
reads it can't tell them apart; on a causal model they agree (tests/learner/test_layout.py).

A sample is one (row, turn) pair; `samples` is their number over the rows of a layout, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from learner.rows import Row

Part = Literal["state", "action", "next_state", "fresh"]


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
        mask: bool; [rows, 1, length, length] (query may look at key) for a packed causal pass, or
            [rows, length] (token is not a pad) for separate sequences.
        points: for each part, where its last token is read: [samples], for "fresh" [samples, n].
        predictions: for "action" and "fresh", the tokens of these actions (packed layouts only).
    """

    input_ids: Tensor
    position_ids: Tensor
    mask: Tensor
    points: dict[str, Points] = field(default_factory=dict)
    predictions: dict[str, Predictions] = field(default_factory=dict)

    def to(self, device: torch.device) -> Layout:
        """The same layout on `device`."""
        if self.input_ids.device == device:
            return self
        return Layout(
            self.input_ids.to(device),
            self.position_ids.to(device),
            self.mask.to(device),
            {k: Points(*(t.to(device) for t in v)) for k, v in self.points.items()},
            {k: Predictions(*(t.to(device) for t in v)) for k, v in self.predictions.items()},
        )


class Encoder(Protocol):
    """Builds layouts for one kind of backbone."""

    def encode(self, rows: Sequence[Row], parts: Sequence[Part], horizon: int = 1) -> Layout:
        """Lay out `rows` so that `parts` can be read.

        Args:
            horizon: turns from a sample's state to its "next_state" (n of n-step targets), cut at the end of
                the episode. "action" needs a horizon of at least 1.
        """
        ...


class PackedEncoder:
    """One sequence per row: the episode as trunk, then each fresh action as a branch.

    A branch sees the trunk up to its own state and itself; its positions go on from that state. The mask is
    explicit, [rows, 1, length, length].
    """

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def encode(self, rows: Sequence[Row], parts: Sequence[Part], horizon: int = 1) -> Layout:
        reader = _Reader(parts)
        sequences = [_PackedSequence(index, row, reader, horizon) for index, row in enumerate(rows)]
        length = max(sequence.length for sequence in sequences)
        shape = (len(rows), length)
        ids = np.full(shape, self.pad_token_id, dtype=np.int64)
        position = np.zeros(shape, dtype=np.int64)
        # Per token: its branch (0 is the trunk, -1 a pad) and how much of the trunk it sees.
        branch = np.full(shape, -1, dtype=np.int32)
        sees = np.zeros(shape, dtype=np.int32)
        for index, sequence in enumerate(sequences):
            n = sequence.length
            ids[index, :n] = sequence.ids
            position[index, :n] = sequence.position
            branch[index, :n] = sequence.branch
            sees[index, :n] = sequence.sees
        return Layout(
            torch.from_numpy(ids),
            torch.from_numpy(position),
            tree_mask(torch.from_numpy(branch), torch.from_numpy(sees)),
            *reader.tensors(),
        )


def tree_mask(branch: Tensor, sees: Tensor) -> Tensor:
    """Who may look at whom in packed sequences.

    Args:
        branch: int [rows, length]; 0 is the trunk, 1, 2, ... the branches, -1 a pad.
        sees: int [rows, length]; a token sees the trunk's first `sees` tokens. On the trunk: itself and before.

    Returns:
        bool [rows, 1, length, length], true where the query (third axis) sees the key (fourth). A pad sees
        itself only, so that no softmax is empty.
    """
    index = torch.arange(branch.shape[1])
    key_branch = branch.unsqueeze(1)
    trunk = (key_branch == 0) & (index < sees.unsqueeze(2))
    same = (key_branch == branch.unsqueeze(2)) & (key_branch > 0) & (index <= index.unsqueeze(1))
    itself = torch.eye(branch.shape[1], dtype=torch.bool)
    return (trunk | same | itself).unsqueeze(1)


class _Reader:
    """Collects points and predictions while sequences are laid out."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = set(parts)
        self.sample = 0
        self._points: dict[str, list[tuple[int, int]]] = {part: [] for part in parts}
        self._predictions: dict[str, list[np.ndarray]] = {
            part: [] for part in ("action", "fresh") if part in self.parts
        }
        self._fresh = 0

    def point(self, part: Part, row: int, column: int) -> None:
        if part in self.parts:
            self._points[part].append((row, column))

    def predict(self, part: Part, row: int, columns: np.ndarray, tokens: np.ndarray, action: int) -> None:
        if part in self._predictions:
            block = np.empty((5, len(tokens)), dtype=np.int64)
            block[0], block[1], block[2], block[3], block[4] = row, columns, tokens, self.sample, action
            self._predictions[part].append(block)

    def next_sample(self, fresh: int) -> None:
        self._fresh = fresh
        self.sample += 1

    def tensors(self) -> tuple[dict[str, Points], dict[str, Predictions]]:
        points = {}
        for part, pairs in self._points.items():
            array = torch.from_numpy(np.asarray(pairs, dtype=np.int64).reshape(-1, 2))
            if part == "fresh":
                array = array.view(self.sample, self._fresh, 2)
            points[part] = Points(array[..., 0], array[..., 1])
        predictions = {
            part: Predictions(*torch.from_numpy(np.concatenate(blocks, axis=1)))
            for part, blocks in self._predictions.items()
            if blocks
        }
        return points, predictions


class _PackedSequence:
    """One row laid out: trunk, then branches."""

    def __init__(self, index: int, row: Row, reader: _Reader, horizon: int) -> None:
        last = len(row.action_start)
        trunk = max(row.state_end(min(int(turn) + horizon, last)) for turn in row.turns)
        ids = [row.tokens[:trunk]]
        position = [np.arange(trunk)]
        branch = [np.zeros(trunk, dtype=np.int32)]
        sees = [np.arange(1, trunk + 1)]
        self.length = trunk
        branches = 0
        for sample, turn in enumerate(row.turns):
            turn = int(turn)
            state = row.state_end(turn)
            reader.point("state", index, state - 1)
            if horizon:
                end = int(row.action_end[turn])
                reader.point("action", index, end - 1)
                reader.predict("action", index, np.arange(state - 1, end - 1), row.tokens[state:end], 0)
                reader.point("next_state", index, row.state_end(min(turn + horizon, last)) - 1)
            if "fresh" in reader.parts:
                for k, tokens in enumerate(row.fresh[sample]):
                    branches += 1
                    n = len(tokens)
                    columns = np.arange(self.length, self.length + n)
                    ids.append(tokens)
                    position.append(np.arange(state, state + n))
                    branch.append(np.full(n, branches, dtype=np.int32))
                    sees.append(np.full(n, state))
                    reader.point("fresh", index, int(columns[-1]) if n else state - 1)
                    predictors = np.concatenate(([state - 1], columns[:-1]))[:n]
                    reader.predict("fresh", index, predictors, tokens, k)
                    self.length += n
            reader.next_sample(len(row.fresh[sample]) if row.fresh else 0)
        self.ids = np.concatenate(ids)
        self.position = np.concatenate(position)
        self.branch = np.concatenate(branch)
        self.sees = np.concatenate(sees)


class SeparateEncoder:
    """One sequence for each state and each state with an action: for encoders, and to check packing by.

    Args:
        pad_token_id: fills the end of short sequences.
        translate: int64 [policy vocabulary], the backbone's id of each token of the policy; None keeps ids.
        prefix, suffix: ids put around each sequence (an encoder's start and end marks).
        read_first: read at the first token (an encoder's start mark) instead of the last.
        max_tokens: longest sequence; of longer ones the last tokens are kept.
    """

    def __init__(
        self,
        pad_token_id: int,
        *,
        translate: np.ndarray | None = None,
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
        tokens = tokens.astype(np.int64) if self.translate is None else self.translate[tokens]
        if self.max_tokens is not None:
            room = self.max_tokens - len(self.prefix) - len(self.suffix)
            tokens = tokens[-room:]
        return np.concatenate((self.prefix, tokens, self.suffix))

    def encode(self, rows: Sequence[Row], parts: Sequence[Part], horizon: int = 1) -> Layout:
        reader = _Reader(parts)
        sequences: list[np.ndarray] = []

        def add(part: Part, tokens: np.ndarray) -> None:
            if part in reader.parts:
                sequence = self._sequence(tokens)
                reader.point(part, len(sequences), 0 if self.read_first else len(sequence) - 1)
                sequences.append(sequence)

        for row in rows:
            last = len(row.action_start)
            for sample, turn in enumerate(row.turns):
                turn = int(turn)
                state = row.tokens[: row.state_end(turn)]
                add("state", state)
                if horizon:
                    add("action", row.tokens[: int(row.action_end[turn])])
                    add("next_state", row.tokens[: row.state_end(min(turn + horizon, last))])
                if "fresh" in reader.parts:
                    for tokens in row.fresh[sample]:
                        add("fresh", np.concatenate((state, tokens)))
                reader.next_sample(len(row.fresh[sample]) if row.fresh else 0)
        length = max(len(sequence) for sequence in sequences)
        ids = np.full((len(sequences), length), self.pad_token_id, dtype=np.int64)
        mask = np.zeros((len(sequences), length), dtype=bool)
        for index, sequence in enumerate(sequences):
            ids[index, : len(sequence)] = sequence
            mask[index, : len(sequence)] = True
        points, _ = reader.tensors()
        position = torch.arange(length).expand(len(sequences), length)
        return Layout(torch.from_numpy(ids), position, torch.from_numpy(mask), points)
