"""Layouts of packed passes: one token sequence per episode, with the fresh actions as branches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from learner.passes.attention import Tree
from learner.passes.layout import Layout, Part, Points, Predictions
from learner.passes.rows import Row


class PackedEncoder:
    """Lays out each row as one sequence: the episode as trunk, then each fresh action as a branch.

    A branch attends to the trunk up to its own state and to itself; its positions continue from that state. The
    branches of all rows begin in the same column, after the longest trunk.
    """

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def encode(self, rows: Sequence[Row], parts: Sequence[Part], horizon: int = 1) -> Layout:
        """Return the packed layout of `rows`, see `Encoder.encode`."""
        if horizon < 1 and {"action", "next_state", "next_states"} & set(parts):
            raise ValueError(f"a horizon of {horizon} ends the trunk at the states; {parts} need one of at least 1")
        samples = _Samples.of(rows, horizon)
        trunks = np.zeros(len(rows), dtype=np.int64)
        np.maximum.at(trunks, samples.row, samples.ahead)
        trunk = int(trunks.max())
        fresh = _Fresh.of(rows, samples, trunk) if "fresh" in parts else None
        shape = (len(rows), trunk if fresh is None else max(trunk, fresh.length))
        ids = np.full(shape, self.pad_token_id, dtype=np.int64)
        # Positions continue over a trunk's pads, so that transformers finds one sequence in each row.
        position = np.tile(np.arange(shape[1]), (len(rows), 1))
        branch = np.full(shape, -1, dtype=np.int32)
        sees = np.zeros(shape, dtype=np.int32)
        for index, row in enumerate(rows):
            n = trunks[index]
            ids[index, :n] = row.episode.tokens[:n]
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
    """The samples of all rows, in order: int64 arrays [samples]."""

    row: np.ndarray
    state: np.ndarray  # number of tokens of the state
    action: np.ndarray  # number of tokens of state and action
    path: np.ndarray  # [samples, horizon], number of tokens of the states 1 to `horizon` turns later

    @classmethod
    def of(cls, rows: Sequence[Row], horizon: int) -> _Samples:
        state, action, path = [], [], []
        steps = np.arange(1, horizon + 1)
        for row in rows:
            episode = row.episode
            bounds = np.append(episode.action_start, len(episode.tokens))
            state.append(bounds[row.turns])
            action.append(episode.action_end[row.turns])
            path.append(bounds[np.minimum(row.turns[:, None] + steps, episode.turns)])
        index = np.repeat(np.arange(len(rows)), [len(row.turns) for row in rows])
        return cls(index, *(np.concatenate(found).astype(np.int64) for found in (state, action, path)))

    @property
    def ahead(self) -> np.ndarray:
        """Number of tokens up to the horizon, [samples]."""
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
        """Return the tokens of the data's actions, from the ids [rows, length]."""
        lengths = self.action - self.state
        sample = np.repeat(np.arange(len(lengths)), lengths)
        row, column = self.row[sample], self.state[sample] - 1 + _within(lengths)
        return _predictions(row, column, ids[row, column + 1], sample, np.zeros_like(sample))


class _Fresh(NamedTuple):
    """The tokens of all fresh actions, in order: int64 arrays [tokens], and the points."""

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
        given = [row.fresh for row in rows if row.fresh is not None]
        per_sample = int(given[0].counts[0])
        lengths = np.concatenate([np.diff(fresh.offsets) for fresh in given])
        # Of each action: its row, the first action of that row, and the column after its last token.
        row = np.repeat(samples.row, per_sample)
        state = np.repeat(samples.state, per_sample)
        first = np.searchsorted(row, row)
        end = np.cumsum(lengths)
        end += trunk - (end - lengths)[first]
        last = np.where(lengths > 0, end, state) - 1
        of = np.repeat(np.arange(len(lengths)), lengths)
        within = _within(lengths)
        shape = (len(samples.row), per_sample)
        return cls(
            row[of],
            (end - lengths)[of] + within,
            np.concatenate([fresh.tokens for fresh in given]).astype(np.int64),
            state[of] + within,
            (np.arange(len(lengths)) - first + 1)[of],
            state[of],
            of // per_sample,
            of % per_sample,
            Points(torch.from_numpy(row.reshape(shape)), torch.from_numpy(last.reshape(shape))),
        )

    @property
    def length(self) -> int:
        """Number of columns of trunks and branches."""
        return int(self.column.max()) + 1 if len(self.column) else 0

    def predictions(self) -> Predictions:
        # The last token of the state predicts the first token of a branch.
        column = np.where(self.position == self.state, self.state, self.column) - 1
        return _predictions(self.row, column, self.token, self.sample, self.action)


def _within(lengths: np.ndarray) -> np.ndarray:
    """Return the index of each token in its piece: int64 [sum of `lengths`]."""
    ends = np.cumsum(lengths)
    return np.arange(lengths.sum()) - np.repeat(ends - lengths, lengths)


def _predictions(*columns: np.ndarray) -> Predictions:
    return Predictions(*map(torch.from_numpy, columns))
