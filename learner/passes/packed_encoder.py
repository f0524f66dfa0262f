"""Layouts of packed passes: one token sequence per episode, with the fresh actions as branches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from learner.passes.layout import Layout, Part, Points, Predictions
from learner.passes.masks import Tree
from learner.passes.rows import Row
from learner.passes.segments import Ends, Segments, joined


class PackedEncoder:
    """Lays out each row as one sequence: the episode as trunk, then each fresh action as a branch.

    An episode of several segments is several sequences, one for each segment.

    A branch attends to the trunk up to its own state and to itself; its positions continue from that state. The
    branches of all rows begin in the same column, after the longest trunk.

    Args:
        text_tokens: returns the token ids of a privileged text; only the part "privileged" needs it.
    """

    def __init__(self, pad_token_id: int, text_tokens: Callable[[str], Sequence[int]] | None = None) -> None:
        self.pad_token_id = pad_token_id
        self._text_tokens = text_tokens

    def encode(self, rows: Sequence[Row], parts: Sequence[Part], horizon: int = 1) -> Layout:
        """Return the packed layout of `rows`, see `Encoder.encode`."""
        if horizon < 1 and {"action", "next_state", "next_states"} & set(parts):
            raise ValueError(f"a horizon of {horizon} ends the trunk at the states; {parts} need one of at least 1")
        segments = Segments(rows)
        ends = _ends(segments, horizon)
        fresh = _branches(segments) if "fresh" in parts else None
        # Segments that no part reads are left out.
        lengths = _reach(segments, ends, horizon)
        if fresh is not None:
            np.maximum.at(lengths, fresh.row, fresh.state)
        read = lengths > 0
        number, trunks = np.cumsum(read) - 1, lengths[read][:, None]
        trunk = int(trunks.max())
        actions: dict[Part, _Actions] = {}
        if "action" in parts:
            state, end = ends["state"], ends["action"].length
            one = np.ones(len(end), dtype=np.int64)
            actions["action"] = _Actions(number[state.sequence], state.length, state.length, end - state.length, one)
        if fresh is not None:
            actions["fresh"] = fresh._replace(row=number[fresh.row], start=fresh.start + trunk)
        column = np.arange(max(trunk, *(found.end.max(initial=0) for found in actions.values()), 0))
        inside = column < trunks
        ids = np.full(inside.shape, self.pad_token_id, dtype=np.int64)
        for index, sequence in enumerate(np.flatnonzero(read)):
            tokens = rows[segments.row[sequence]].episode.tokens[segments.start[sequence] :]
            ids[index, : trunks[index, 0]] = tokens[: trunks[index, 0]]
        # Positions continue over a trunk's pads, so that transformers finds one sequence in each row. A pad behind the
        # trunks has position 0: its column may lie beyond the learned positions of a model.
        position = np.tile(np.where(column < trunk, column, 0), (len(trunks), 1))
        branch = np.where(inside, 0, -1).astype(np.int32)
        sees = np.where(inside, column + 1, 0).astype(np.int32)
        if "fresh" in actions:
            fresh = actions["fresh"]
            of, within = fresh.tokens()
            at = (fresh.row[of], fresh.start[of] + within)
            ids[at] = np.concatenate([row.fresh.tokens for row in rows if row.fresh is not None])
            branch[at] = (_within(fresh.row, np.ones_like(fresh.row)) + 1)[of]
            position[at], sees[at] = fresh.state[of] + within, fresh.state[of]
        points = {str(part): _points(number, ends[part]) for part in parts if part in ends}
        if "action" in actions:
            points["action_state"] = _points(number, ends["state"])
        if "fresh" in actions:
            points["fresh"], points["fresh_state"] = actions["fresh"].points()
        predictions = {str(part): found.predictions(ids) for part, found in actions.items()}
        if "observation" in parts:
            predictions["observation"] = _observations(segments, lengths, ids)
        if "privileged" in parts:
            predictions["privileged"] = self._privileged(rows, number, ends["state"])
        tree = Tree(torch.from_numpy(branch), torch.from_numpy(sees), trunk)
        return Layout(torch.from_numpy(ids), torch.from_numpy(position), tree, points, predictions)

    def _privileged(self, rows: Sequence[Row], number: np.ndarray, states: Ends) -> Predictions:
        """Return the tokens of each sample's privileged text, and the last token of its state."""
        assert self._text_tokens is not None, "the encoder was built without the tokens of privileged texts"
        texts = [np.asarray(self._text_tokens(row.episode.privileged), np.int64) for row in rows for _ in row.turns]
        sample = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
        found = (number[states.sequence][sample], states.length[sample] - 1, np.concatenate(texts), sample)
        return Predictions(*map(torch.from_numpy, (*found, np.zeros_like(sample))))


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

    def points(self) -> tuple[Points, Points]:
        """Return the positions of each action's last token and of its state's last token, [states, most actions].

        A state with fewer actions repeats its last one.
        """
        last = np.where(self.length > 0, self.end, self.state) - 1
        most = np.arange(self.counts.max())
        first = np.cumsum(self.counts) - self.counts
        at = first[:, None] + np.minimum(most, self.counts[:, None] - 1)
        row, action, state = (torch.from_numpy(found[at]) for found in (self.row, last, self.state - 1))
        return Points(row, action), Points(row, state)

    def predictions(self, ids: np.ndarray) -> Predictions:
        """Return the tokens, whose ids are in `ids` [rows, length], and the positions that predict them."""
        of, within = self.tokens()
        row, column = self.row[of], self.start[of] + within
        # The last token of the state predicts the first token.
        predicts = np.where(within == 0, self.state[of], column) - 1
        state = np.repeat(np.arange(len(self.counts)), self.counts)
        number = np.arange(len(state)) - (np.cumsum(self.counts) - self.counts)[state]
        return Predictions(*map(torch.from_numpy, (row, predicts, ids[row, column], state[of], number[of])))


def _ends(segments: Segments, horizon: int) -> dict[Part, Ends]:
    """Return the end of each part of the samples: arrays [samples], and [samples, horizon] for "next_states"."""
    state, action, path = [], [], []
    steps = np.arange(1, horizon + 1)
    for index, row in enumerate(segments.rows):
        state.append(segments.states(index, row.turns))
        action.append(segments.actions(index, row.turns))
        path.append(segments.states(index, np.minimum(row.turns[:, None] + steps, row.episode.turns)))
    ends, ahead = joined(state), joined(path)
    last = Ends(ahead.sequence[:, -1], ahead.length[:, -1]) if horizon else ends
    return {"state": ends, "action": joined(action), "next_state": last, "next_states": ahead}


def _reach(segments: Segments, ends: dict[Part, Ends], horizon: int) -> np.ndarray:
    """Return how many tokens of each segment the parts of the trunk read, int64 [segments]."""
    reach = np.zeros(len(segments.row), dtype=np.int64)
    for part, end in ends.items():
        if horizon or part == "state":
            np.maximum.at(reach, end.sequence, end.length)
    return reach


def _branches(segments: Segments) -> _Actions:
    """Return the fresh actions. Those of a segment follow each other in their order, and the first begins at 0."""
    given = [(index, row, row.fresh) for index, row in enumerate(segments.rows) if row.fresh is not None]
    counts = np.concatenate([fresh.counts for _, _, fresh in given]).astype(np.int64)
    length = np.concatenate([np.diff(fresh.offsets) for _, _, fresh in given])
    ends = joined([segments.states(index, row.states) for index, row, _ in given])
    sequence, state = np.repeat(ends.sequence, counts), np.repeat(ends.length, counts)
    return _Actions(sequence, state, _within(sequence, length), length, counts)


def _within(group: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return the sum of the sizes before each item in its group, int64 [items]."""
    order = np.argsort(group, kind="stable")
    before = np.cumsum(size[order]) - size[order]
    found = np.empty_like(before)
    found[order] = before - before[np.searchsorted(group[order], group[order])]
    return found


def _observations(segments: Segments, lengths: np.ndarray, ids: np.ndarray) -> Predictions:
    """Return the tokens of the trunks that belong to no action, and their predecessors.

    They include the tokens that a renderer puts around actions and observations. The first token has no predecessor.

    Args:
        lengths: int64 [segments], the tokens of each trunk; segments of length 0 are not in `ids`.
    """
    read = np.flatnonzero(lengths)
    outside = [segments.observations(sequence, int(lengths[sequence])) for sequence in read]
    rows_of, columns = np.repeat(np.arange(len(read)), [len(found) for found in outside]), np.concatenate(outside)
    sizes = np.array([len(given.turns) for given in segments.rows])
    first = (np.cumsum(sizes) - sizes)[segments.row[read]][rows_of]
    return Predictions(
        *map(torch.from_numpy, (rows_of, columns - 1, ids[rows_of, columns], first, np.zeros_like(columns)))
    )


def observation_tokens(rows: Sequence[Row], horizon: int) -> int:
    """Return the number of tokens of the part "observation" in a layout of `rows` with other parts of this horizon."""
    segments = Segments(rows)
    lengths = _reach(segments, _ends(segments, horizon), horizon)
    return sum(len(segments.observations(index, int(lengths[index]))) for index in np.flatnonzero(lengths))


def _points(number: np.ndarray, ends: Ends) -> Points:
    """Return the positions of the last tokens of a part; `number` is the layout's row of each segment."""
    return Points(torch.from_numpy(number[ends.sequence]), torch.from_numpy(ends.length - 1))
