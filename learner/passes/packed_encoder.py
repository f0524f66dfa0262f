"""Layouts of packed passes: one token sequence per episode, with the fresh actions as branches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from learner.passes.layout import Layout, Part, Points, Predictions
from learner.passes.masks import Tree
from learner.passes.rows import Row, outside_actions


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
        of_row, ends = _ends(rows, horizon)
        trunks = np.zeros((len(rows), 1), dtype=np.int64)
        np.maximum.at(trunks[:, 0], of_row, ends["next_state"])
        if "fresh" in parts:
            reach = [row.episode.state_end(int(row.states.max())) for row in rows]
            trunks = np.maximum(trunks, np.array(reach)[:, None])
        trunk = int(trunks.max())
        actions: dict[Part, _Actions] = {}
        if "action" in parts:
            one = np.ones(len(of_row), dtype=np.int64)
            actions["action"] = _Actions(of_row, ends["state"], ends["state"], ends["action"] - ends["state"], one)
        if "fresh" in parts:
            actions["fresh"] = _branches(rows, trunk)
        column = np.arange(max(trunk, *(found.end.max(initial=0) for found in actions.values()), 0))
        inside = column < trunks
        ids = np.full(inside.shape, self.pad_token_id, dtype=np.int64)
        for index, row in enumerate(rows):
            ids[index, : trunks[index, 0]] = row.episode.tokens[: trunks[index, 0]]
        # Positions continue over a trunk's pads, so that transformers finds one sequence in each row. A pad behind the
        # trunks has position 0: its column may lie beyond the learned positions of a model.
        position = np.tile(np.where(column < trunk, column, 0), (len(rows), 1))
        branch = np.where(inside, 0, -1).astype(np.int32)
        sees = np.where(inside, column + 1, 0).astype(np.int32)
        if "fresh" in actions:
            fresh = actions["fresh"]
            of, within = fresh.tokens()
            at = (fresh.row[of], fresh.start[of] + within)
            ids[at] = np.concatenate([row.fresh.tokens for row in rows if row.fresh is not None])
            first = np.searchsorted(fresh.row, fresh.row)
            branch[at] = (np.arange(len(first)) - first + 1)[of]
            position[at], sees[at] = fresh.state[of] + within, fresh.state[of]
        points = {str(part): _points(of_row, ends[part]) for part in parts if part in ends}
        if "fresh" in actions:
            points["fresh"] = actions["fresh"].points()
        predictions = {str(part): found.predictions(ids) for part, found in actions.items()}
        if "observation" in parts:
            predictions["observation"] = _observations(rows, trunks[:, 0], ids)
        tree = Tree(torch.from_numpy(branch), torch.from_numpy(sees), trunk)
        return Layout(torch.from_numpy(ids), torch.from_numpy(position), tree, points, predictions)


class _Actions(NamedTuple):
    """Actions in a layout, in the order of their states: int64 arrays [actions], but for `counts`."""

    row: np.ndarray
    state: np.ndarray  # number of tokens of the state
    start: np.ndarray  # column of the first token
    length: np.ndarray
    counts: np.ndarray  # int64 [states], actions of each state

    @property
    def end(self) -> np.ndarray:
        return self.start + self.length

    def tokens(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the action of each token, and the index of the token in its action: int64 [tokens]."""
        of = np.repeat(np.arange(len(self.length)), self.length)
        return of, np.arange(len(of)) - (np.cumsum(self.length) - self.length)[of]

    def points(self) -> Points:
        """Return the position of each action's last token, [states, most actions].

        A state with fewer actions repeats its last one.
        """
        last = np.where(self.length > 0, self.end, self.state) - 1
        most = np.arange(self.counts.max())
        first = np.cumsum(self.counts) - self.counts
        at = first[:, None] + np.minimum(most, self.counts[:, None] - 1)
        return Points(torch.from_numpy(self.row[at]), torch.from_numpy(last[at]))

    def predictions(self, ids: np.ndarray) -> Predictions:
        """Return the tokens, whose ids are in `ids` [rows, length], and the positions that predict them."""
        of, within = self.tokens()
        row, column = self.row[of], self.start[of] + within
        # The last token of the state predicts the first token.
        predicts = np.where(within == 0, self.state[of], column) - 1
        state = np.repeat(np.arange(len(self.counts)), self.counts)
        number = np.arange(len(state)) - (np.cumsum(self.counts) - self.counts)[state]
        return Predictions(*map(torch.from_numpy, (row, predicts, ids[row, column], state[of], number[of])))


def _ends(rows: Sequence[Row], horizon: int) -> tuple[np.ndarray, dict[Part, np.ndarray]]:
    """Return each sample's row, int64 [samples], and the number of tokens up to the end of each part of the trunk.

    The numbers are int64 [samples], and [samples, horizon] for "next_states".
    """
    state, action, path = [], [], []
    steps = np.arange(1, horizon + 1)
    for row in rows:
        episode = row.episode
        bounds = np.append(episode.action_start, len(episode.tokens))
        state.append(bounds[row.turns])
        action.append(episode.action_end[row.turns])
        path.append(bounds[np.minimum(row.turns[:, None] + steps, episode.turns)])
    ends, action_ends, ahead = (np.concatenate(found).astype(np.int64) for found in (state, action, path))
    next_state = ahead[:, -1] if horizon else ends
    of_row = np.repeat(np.arange(len(rows)), [len(row.turns) for row in rows])
    return of_row, {"state": ends, "action": action_ends, "next_state": next_state, "next_states": ahead}


def _branches(rows: Sequence[Row], trunk: int) -> _Actions:
    """Return the fresh actions, which follow each other in their row from column `trunk` on."""
    given = [(index, row, row.fresh) for index, row in enumerate(rows) if row.fresh is not None]
    counts = np.concatenate([fresh.counts for _, _, fresh in given]).astype(np.int64)
    length = np.concatenate([np.diff(fresh.offsets) for _, _, fresh in given])
    row_of = np.repeat(np.concatenate([np.full(len(row.states), index) for index, row, _ in given]), counts)
    bounds = [np.append(row.episode.action_start, len(row.episode.tokens))[row.states] for _, row, _ in given]
    start = np.cumsum(length) - length
    first = start[np.searchsorted(row_of, row_of)]
    return _Actions(row_of, np.repeat(np.concatenate(bounds), counts), start - first + trunk, length, counts)


def _observations(rows: Sequence[Row], trunks: np.ndarray, ids: np.ndarray) -> Predictions:
    """Return the tokens of the trunks, `trunks` [rows] long, that belong to no action, and their predecessors.

    They include the tokens that a renderer puts around actions and observations. The first token has no predecessor.
    """
    outside = [outside_actions(row.episode, length) for row, length in zip(rows, trunks.tolist(), strict=True)]
    rows_of, columns = np.repeat(np.arange(len(rows)), [len(found) for found in outside]), np.concatenate(outside)
    sizes = np.array([len(given.turns) for given in rows])
    first = (np.cumsum(sizes) - sizes)[rows_of]
    return Predictions(
        *map(torch.from_numpy, (rows_of, columns - 1, ids[rows_of, columns], first, np.zeros_like(columns)))
    )


def observation_tokens(rows: Sequence[Row], horizon: int) -> int:
    """Return the number of tokens of the part "observation" in a layout of `rows` with other parts of this horizon."""
    of_row, ends = _ends(rows, horizon)
    trunks = np.zeros(len(rows), dtype=np.int64)
    np.maximum.at(trunks, of_row, ends["next_state"])
    return sum(len(outside_actions(row.episode, length)) for row, length in zip(rows, trunks.tolist(), strict=True))


def _points(of_row: np.ndarray, ends: np.ndarray) -> Points:
    """Return the positions of the last tokens of a part."""
    row, column = torch.from_numpy(of_row), torch.from_numpy(ends - 1)
    return Points(row if column.dim() == 1 else row.unsqueeze(1).expand_as(column), column)
