"""The numbers that are kept per row, and how samplers choose among them: uniformly and by priority.

A row's `index` is its place among the rows held, oldest first; a turn's `position` its number in the store's life,
which the sum tree goes by. Priorities are those of Schaul et al., "Prioritized Experience Replay" (ICLR 2016): turn i
is drawn with probability p_i^a / sum_k p_k^a, and a new turn has the largest priority there was so far.
"""

from typing import NamedTuple

import numpy as np

from buffer.errors import ReplayError
from buffer.sampling.draws import Held
from buffer.sampling.request import Sampler, Unit
from buffer.sampling.row_filter import RowFilter
from buffer.shard.sliding_array import Window
from buffer.shard.sum_tree import SumTree

LEAST_PRIORITY = 1e-6
"""A turn without error is drawn now and then, so that it is seen when it has one again."""
_SELECTIONS = 8
"""Filters whose rows are kept until the next append."""


class RowNumbers(NamedTuple):
    """Of rows that are appended, each [rows]."""

    turns: np.ndarray
    oldest_version: np.ndarray
    ret: np.ndarray
    bytes: np.ndarray


class Drawn(NamedTuple):
    """n draws."""

    rows: np.ndarray
    """int64[n], indices of rows."""
    turn: np.ndarray
    """int32[n], -1 where whole episodes were drawn."""
    probability: np.ndarray
    """float64[n]"""
    held: Held
    """What it was drawn from."""


class _Selection(NamedTuple):
    """Rows that pass a filter."""

    rows: np.ndarray
    """int64[k], their indices."""
    ends: np.ndarray
    """int64[k], their turns, summed up."""


class RowIndex:
    """Windows over the rows of a store, and a sum tree over their turns."""

    def __init__(self, *, priority_exponent: float) -> None:
        self.exponent = priority_exponent
        self.largest = 1.0
        """The largest mass that a turn had so far."""
        self._turn_base = 0
        """Turns of all rows dropped so far."""
        self._byte_base = 0
        self.seq = Window(np.int64)
        """Number of the row in the shard's whole history, which outlives restarts."""
        self._turn_end = Window(np.int64)
        """Turns of all rows up to and with this one, since the store was made; `_byte_end` likewise."""
        self._byte_end = Window(np.int64)
        self._oldest_version = Window(np.int32)
        self._return = Window(np.float64)
        """Undiscounted, in the precision of `Episode.ret`."""
        self._masses = SumTree()
        self._selections: dict[RowFilter, _Selection] = {}

    def __len__(self) -> int:
        return len(self.seq)

    @property
    def turns(self) -> int:
        """Turns held."""
        return int(self._turn_end.view()[-1]) - self._turn_base if len(self) else 0

    @property
    def turns_ever(self) -> int:
        """Turns appended since this was made."""
        return self._turn_base + self.turns

    @property
    def bytes(self) -> int:
        """Bytes of the rows held."""
        return int(self._byte_end.view()[-1]) - self._byte_base if len(self) else 0

    def turns_before(self, index: int) -> int:
        """Turns appended before this row, since this was made."""
        return int(self._turn_end.view()[index - 1]) if index else self._turn_base

    def extend(self, first_seq: int, numbers: RowNumbers) -> None:
        """Append rows."""
        rows, turns = len(numbers.turns), int(numbers.turns.sum())
        self._turn_end.extend(self.turns_ever + np.cumsum(numbers.turns))
        self._byte_end.extend(self._byte_base + self.bytes + np.cumsum(numbers.bytes))
        self.seq.extend(np.arange(first_seq, first_seq + rows))
        self._oldest_version.extend(numbers.oldest_version)
        self._return.extend(numbers.ret)
        self._masses.extend(np.full(turns, self.largest))
        self._selections.clear()

    def excess(self, capacity_turns: int, capacity_bytes: float) -> int:
        """How many of the oldest rows are too many; never the newest."""
        ends, sizes = self._turn_end.view(), self._byte_end.view()
        gone = max(
            _rows_to_drop(ends, self._turn_base, capacity_turns), _rows_to_drop(sizes, self._byte_base, capacity_bytes)
        )
        return min(gone, len(ends) - 1)

    def drop(self, count: int) -> None:
        """Forget the oldest `count` rows."""
        turns = int(self._turn_end.view()[count - 1]) - self._turn_base
        self._byte_base = int(self._byte_end.view()[count - 1])
        self._turn_base += turns
        self._masses.drop(turns)
        windows = (self.seq, self._turn_end, self._byte_end, self._oldest_version, self._return)
        for window in windows:
            window.drop(count)
        self._selections.clear()

    def held(self, only: RowFilter, sampler: Sampler = "uniform") -> Held:
        """What passes the filter; its mass only for the sampler that goes by it."""
        mass = 0.0
        if only.everything:
            if sampler == "prioritised":
                mass = self._masses.total
            return Held(len(self), self.turns, mass)
        selected = self._select(only)
        if sampler == "prioritised" and len(selected.rows):
            mass = float(self._masses.masses(self._positions(selected.rows)).sum())
        return Held(len(selected.rows), int(selected.ends[-1]) if len(selected.ends) else 0, mass)

    def selected(self, only: RowFilter) -> np.ndarray:
        """int64[k], indices of the rows that pass the filter, oldest first."""
        return self._select(only).rows

    def returns(self, only: RowFilter) -> np.ndarray:
        """float64[k], the undiscounted return of each row that passes the filter, oldest first."""
        return self._return.view()[self._select(only).rows]

    def draw(
        self, count: int, *, unit: Unit, only: RowFilter, sampler: Sampler, rng: np.random.Generator
    ) -> Drawn | None:
        """Draw `count` turns or episodes with replacement; None where nothing can be drawn."""
        held = self.held(only, sampler)
        if held.episodes == 0:
            return None
        choose = self._uniform if sampler == "uniform" else self._prioritised
        return Drawn(*choose(count, unit, only, held, rng), held)

    def update(self, seqs: np.ndarray, turns: np.ndarray, priorities: np.ndarray) -> int:
        """Give turns new priorities; returns how many were still held. Raises ReplayError for what is no priority."""
        if not (np.isfinite(priorities).all() and (priorities >= 0).all()):
            raise ReplayError("a priority is negative, infinite or NaN; give the absolute TD error of each turn")
        known = self.seq.view()
        index = np.searchsorted(known, seqs)
        index = np.minimum(index, max(len(known) - 1, 0))
        there = known[index] == seqs if len(known) else np.zeros(len(seqs), dtype=bool)
        index, turns = index[there], turns[there]
        starts, ends = self._bounds(index)
        if ((turns < 0) | (turns >= ends - starts)).any():
            raise ReplayError("a priority is of a turn that its episode does not have")
        masses = np.maximum(priorities[there], LEAST_PRIORITY) ** self.exponent
        self._masses.set(starts + turns, masses)
        self.largest = max(self.largest, float(masses.max(initial=0.0)))
        return len(index)

    def state(self) -> dict[str, np.ndarray]:
        """The priorities, for `load_state`."""
        return {
            "seq": self.seq.view().copy(),
            "turns": self._turns(),
            "mass": self._masses.masses(np.arange(self._turn_base, self.turns_ever)),
            "exponent": np.array(self.exponent),
            "largest": np.array(self.largest),
        }

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Give rows that are held the priorities of `state`, and others what new rows have."""
        saved = float(state["exponent"])
        self.largest = _to_exponent(state["largest"], saved, self.exponent).item()
        masses = _to_exponent(state["mass"], saved, self.exponent)
        self._masses.set(np.arange(self._turn_base, self.turns_ever), np.full(self.turns, self.largest))
        _, mine, theirs = np.intersect1d(self.seq.view(), state["seq"], return_indices=True)
        same = self._turns()[mine] == state["turns"][theirs]
        mine, theirs = mine[same], theirs[same]
        starts = np.cumsum(state["turns"]) - state["turns"]
        self._masses.set(self._positions(mine), masses[_ranges(starts[theirs], state["turns"][theirs])])

    def _turns(self) -> np.ndarray:
        return np.diff(self._turn_end.view(), prepend=self._turn_base)

    def _bounds(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The positions of each row's first turn, and behind its last."""
        ends = self._turn_end.view()
        return (np.where(rows > 0, ends[rows - 1], self._turn_base), ends[rows]) if len(rows) else (rows, rows)

    def _turns_of(self, rows: np.ndarray) -> np.ndarray:
        starts, ends = self._bounds(rows)
        return ends - starts

    def _positions(self, rows: np.ndarray) -> np.ndarray:
        """The positions of all turns of the rows, in order."""
        starts, ends = self._bounds(rows)
        return _ranges(starts, ends - starts)

    def _select(self, only: RowFilter) -> _Selection:
        """Rows that pass the filter; kept until the next append."""
        if only not in self._selections:
            if len(self._selections) == _SELECTIONS:
                self._selections.clear()
            rows = only.rows(self._oldest_version.view(), self._return.view())
            self._selections[only] = _Selection(rows, np.cumsum(self._turns()[rows]))
        return self._selections[only]

    def _at(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(index, turn) of turns by their position."""
        ends = self._turn_end.view()
        index = np.searchsorted(ends, position, side="right")
        return index, (position - self._bounds(index)[0]).astype(np.int32)

    def _uniform(
        self, count: int, unit: Unit, only: RowFilter, held: Held, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if unit == "episode":
            index = rng.integers(0, held.episodes, count)
            turn = np.full(count, -1, np.int32)
            probability = np.full(count, 1 / held.episodes)
            return index if only.everything else self._select(only).rows[index], turn, probability
        place = rng.integers(0, held.turns, count)
        probability = np.full(count, 1 / held.turns)
        if only.everything:
            return *self._at(self._turn_base + place), probability
        rows, ends = self._select(only)
        chosen = np.searchsorted(ends, place, side="right")
        starts = np.where(chosen > 0, ends[chosen - 1], 0)
        return rows[chosen], (place - starts).astype(np.int32), probability

    def _prioritised(
        self, count: int, unit: Unit, only: RowFilter, held: Held, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if only.everything:
            position = self._masses.draw(count, rng)
        else:
            among = self._positions(self._select(only).rows)
            sums = np.cumsum(self._masses.masses(among))
            place = np.searchsorted(sums, rng.random(count) * sums[-1], side="right")
            position = among[np.minimum(place, len(among) - 1)]
        index, turn = self._at(position)
        if unit == "turn":
            return index, turn, self._masses.masses(position) / held.mass
        rows, draw = np.unique(index, return_inverse=True)
        masses = self._masses.masses(self._positions(rows))
        turns = self._turns_of(rows)
        mass = np.add.reduceat(masses, np.cumsum(turns) - turns)
        return index, np.full(count, -1, np.int32), mass[draw] / held.mass


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """start, start + 1, ... of each range, one after the other: int64 [sum of `lengths`]."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)


def _rows_to_drop(ends: np.ndarray, base: int, capacity: float) -> int:
    """How many of the oldest rows must go so that what the rest sums up to fits."""
    excess = ends[-1] - capacity
    return 0 if base >= excess else int(np.searchsorted(ends, excess)) + 1


def _to_exponent(masses: np.ndarray, saved: float, wanted: float) -> np.ndarray:
    """Masses p^saved as p^wanted; with an exponent of 0 all priorities were forgotten, and are 1."""
    if saved == wanted:
        return masses
    return masses ** (wanted / saved) if saved else np.ones_like(masses)
