"""The token sequences that a packed pass encodes: one for each segment of an episode.

In most episodes each state is a prefix of the next, so that an episode is one segment. Where a turn renders its history
in another form (`Episode.state_start`), its state begins another segment, which is a sequence of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from learner.passes.rows import Row, outside_actions


class Ends(NamedTuple):
    """Ends of parts in sequences: two int64 arrays of one shape."""

    sequence: np.ndarray
    length: np.ndarray  # number of tokens of the sequence up to the end


class Segments:
    """The segments of rows, in order.

    Attributes:
        row: int64 [sequences], the row of each segment.
        start: int64 [sequences], its first token in the row's episode.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        row: list[np.ndarray] = []
        start: list[np.ndarray] = []
        self._of: list[np.ndarray] = []
        base = 0
        for index, given in enumerate(rows):
            begins, of = np.unique(given.episode.state_starts, return_inverse=True)
            row.append(np.full(len(begins), index))
            start.append(begins.astype(np.int64))
            self._of.append(of + base)
            base += len(begins)
        self.row, self.start = np.concatenate(row), np.concatenate(start)

    def states(self, row: int, states: np.ndarray) -> Ends:
        """Return the ends of states 0..T of a row."""
        bounds = np.append(self.rows[row].episode.action_start, len(self.rows[row].episode.tokens))
        return self._ends(row, states, bounds[states])

    def actions(self, row: int, turns: np.ndarray) -> Ends:
        """Return the ends of the actions of a row."""
        return self._ends(row, turns, self.rows[row].episode.action_end[turns])

    def _ends(self, row: int, states: np.ndarray, ends: np.ndarray) -> Ends:
        sequence = self._of[row][states]
        return Ends(sequence, ends.astype(np.int64) - self.start[sequence])

    def observations(self, sequence: int, length: int) -> np.ndarray:
        """Return the columns of the observation tokens in the first `length` tokens of a sequence, int64 ascending."""
        start = int(self.start[sequence])
        return outside_actions(self.rows[self.row[sequence]].episode, start + length, start) - start


def joined(parts: Sequence[Ends]) -> Ends:
    """Return the ends of all parts, in order."""
    return Ends(*(np.concatenate(found).astype(np.int64) for found in zip(*parts, strict=True)))
