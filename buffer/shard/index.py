"""The numbers of each row, and the samplers over them: uniform and prioritised.

The `index` of a row is its place among the rows held, oldest first. The `position` of a turn counts all turns ever
appended to this object; the sum tree is addressed by it. Priorities follow Schaul et al., "Prioritized Experience
Replay" (ICLR 2016): turn i is drawn with probability p_i^a / sum_k p_k^a, and a new turn gets the largest mass so far.
"""

from typing import NamedTuple

import numpy as np

from buffer.errors import EmptyViewError, ReplayError
from buffer.sampling.request import RowFilter, Sampler, Unit
from buffer.sampling.sample import Draws, Held
from buffer.shard.sliding_array import SlidingArray
from buffer.shard.sum_tree import SumTree

LEAST_PRIORITY = 1e-6  # Lower bound of a priority, so that a turn without error is still drawn now and then
_SELECTIONS = 8  # Number of filters whose rows are cached until the next append


class _Selection(NamedTuple):
    """The rows that pass a filter."""

    rows: np.ndarray  # int64[k], their indices
    ends: np.ndarray  # int64[k], cumulative sum of their turns


_Chosen = tuple[np.ndarray, np.ndarray, np.ndarray]  # (index int64[n], turn int32[n], probability float64[n])


class RowIndex:
    """One sliding array per number of a row, and a sum tree over all turns."""

    def __init__(self, *, priority_exponent: float) -> None:
        self.exponent = priority_exponent
        self.largest = 1.0  # The largest mass that a turn has had so far
        self._turn_base = 0  # Turns of all rows dropped so far; `_byte_base` likewise
        self._byte_base = 0
        self.seq = SlidingArray(np.int64)  # Number of the row in the shard's history, which continues over restarts
        self._turn_end = SlidingArray(np.int64)  # Turns of all rows up to and including this one; `_byte_end` likewise
        self._byte_end = SlidingArray(np.int64)
        self._oldest_version = SlidingArray(np.int32)
        self._created = SlidingArray(np.float64)  # Unix time in seconds
        self._return = SlidingArray(np.float64)  # Undiscounted, in the precision of `Episode.ret`
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
        """Turns ever appended to this object."""
        return self._turn_base + self.turns

    @property
    def bytes(self) -> int:
        """Bytes of the rows held."""
        return int(self._byte_end.view()[-1]) - self._byte_base if len(self) else 0

    @property
    def oldest(self) -> float:
        """Unix time in seconds at which the oldest row by place was created; 0 if there is none."""
        return float(self._created.view()[0]) if len(self) else 0.0

    def extend(
        self,
        first_seq: int,
        *,
        turns: np.ndarray,
        oldest_version: np.ndarray,
        created: np.ndarray,
        ret: np.ndarray,
        sizes: np.ndarray,
    ) -> None:
        """Append rows; each array has one number per row, `sizes` in bytes and `created` in seconds of Unix time."""
        self._masses.extend(np.full(int(turns.sum()), self.largest))
        self._byte_end.extend(self._byte_base + self.bytes + np.cumsum(sizes))
        self._turn_end.extend(self.turns_ever + np.cumsum(turns))
        self.seq.extend(np.arange(first_seq, first_seq + len(turns)))
        self._oldest_version.extend(oldest_version)
        self._created.extend(created)
        self._return.extend(ret)
        self._selections.clear()

    def excess(self, capacity_turns: int, capacity_bytes: float) -> int:
        """Return how many of the oldest rows exceed a capacity; the newest row never does."""
        turns = _rows_to_drop(self._turn_end.view(), self._turn_base, capacity_turns)
        sizes = _rows_to_drop(self._byte_end.view(), self._byte_base, capacity_bytes)
        return min(max(turns, sizes), len(self) - 1)

    def drop(self, count: int) -> None:
        """Drop the oldest `count` rows."""
        turns = int(self._turn_end.view()[count - 1]) - self._turn_base
        self._byte_base = int(self._byte_end.view()[count - 1])
        self._turn_base += turns
        self._masses.drop(turns)
        for array in (self.seq, self._turn_end, self._byte_end, self._oldest_version, self._created, self._return):
            array.drop(count)
        self._selections.clear()

    def held(self, only: RowFilter, sampler: Sampler = "uniform") -> Held:
        """Return how much passes the filter; its mass is 0 unless the sampler is prioritised."""
        mass = 0.0
        if only.everything:
            if sampler == "prioritised":
                mass = self._masses.total
            return Held(len(self), self.turns, mass)
        selected = self._select(only)
        if sampler == "prioritised" and len(selected.rows):
            mass = float(self._masses.masses(self._positions(selected.rows)).sum())
        return Held(len(selected.rows), int(selected.ends[-1]) if len(selected.ends) else 0, mass)

    def returns(self, only: RowFilter) -> np.ndarray:
        """Return float64[k], the undiscounted return of each row that passes the filter, oldest first."""
        return self._return.view()[self._select(only).rows]

    def draw(self, count: int, *, unit: Unit, only: RowFilter, sampler: Sampler, rng: np.random.Generator) -> Draws:
        """Draw `count` turns or episodes with replacement. Raises EmptyViewError if no row passes the filter."""
        held = self.held(only, sampler)
        if held.episodes == 0:
            raise EmptyViewError(f"the shard holds no episode{only}")
        choose = self._uniform if sampler == "uniform" else self._prioritised
        index, turn, probability = choose(count, unit, only, held, rng)
        return Draws(index, turn, self.seq.view()[index], probability, held)

    def every(self, only: RowFilter) -> Draws:
        """Return each row that passes the filter once, oldest first."""
        rows = self._select(only).rows
        count = len(rows)
        return Draws(rows, np.full(count, -1, np.int32), self.seq.view()[rows], np.ones(count), self.held(only))

    def update(self, seqs: np.ndarray, turns: np.ndarray, priorities: np.ndarray) -> int:
        """Set the priorities of turns; returns how many of them are held. Raises ReplayError for an invalid one."""
        if not (np.isfinite(priorities).all() and (priorities >= 0).all()):
            raise ReplayError("a priority is negative, infinite or NaN; give the absolute TD error of each turn")
        known = self.seq.view()
        index = np.searchsorted(known, seqs)
        index = np.minimum(index, max(len(known) - 1, 0))
        there = known[index] == seqs if len(known) else np.zeros(len(seqs), dtype=bool)
        index, turns = index[there], turns[there]
        starts, ends = self._bounds(index)
        if ((turns < 0) | (turns >= ends - starts)).any():
            raise ReplayError("a priority names a turn that its episode does not have")
        masses = np.maximum(priorities[there], LEAST_PRIORITY) ** self.exponent
        self._masses.set(starts + turns, masses)
        self.largest = max(self.largest, float(masses.max(initial=0.0)))
        return len(index)

    def state(self) -> dict[str, np.ndarray]:
        """Return the priorities in a form that `load_state` reads."""
        return {
            "seq": self.seq.view().copy(),
            "turns": self._turns(),
            "mass": self._masses.masses(np.arange(self._turn_base, self.turns_ever)),
            "exponent": np.array(self.exponent),
            "largest": np.array(self.largest),
        }

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Set the priorities of the rows in `state`; other rows get the mass of new rows."""
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
        """Return int64[rows], the turns of each row."""
        return np.diff(self._turn_end.view(), prepend=self._turn_base)

    def _bounds(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the position of each row's first turn, and the position after its last."""
        ends = self._turn_end.view()
        return (np.where(rows > 0, ends[rows - 1], self._turn_base), ends[rows]) if len(rows) else (rows, rows)

    def _positions(self, rows: np.ndarray) -> np.ndarray:
        """Return the positions of all turns of the rows, in order."""
        starts, ends = self._bounds(rows)
        return _ranges(starts, ends - starts)

    def _select(self, only: RowFilter) -> _Selection:
        """Return the rows that pass the filter, cached until the next append."""
        if only not in self._selections:
            if len(self._selections) == _SELECTIONS:
                self._selections.clear()
            rows = only.rows(self._oldest_version.view(), self._return.view())
            self._selections[only] = _Selection(rows, np.cumsum(self._turns()[rows]))
        return self._selections[only]

    def _at(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (index, turn) of positions."""
        index = np.searchsorted(self._turn_end.view(), position, side="right")
        return index, (position - self._bounds(index)[0]).astype(np.int32)

    def _uniform(self, count: int, unit: Unit, only: RowFilter, held: Held, rng: np.random.Generator) -> _Chosen:
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

    def _prioritised(self, count: int, unit: Unit, only: RowFilter, held: Held, rng: np.random.Generator) -> _Chosen:
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
        starts, ends = self._bounds(rows)
        turns = ends - starts
        mass = np.add.reduceat(self._masses.masses(_ranges(starts, turns)), np.cumsum(turns) - turns)
        return index, np.full(count, -1, np.int32), mass[draw] / held.mass


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return int64[sum of lengths]: start, start + 1, ... of each range, concatenated."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)


def _rows_to_drop(ends: np.ndarray, base: int, capacity: float) -> int:
    """Return how many of the oldest rows must go so that the sum over the others fits the capacity."""
    excess = ends[-1] - capacity
    return 0 if base >= excess else int(np.searchsorted(ends, excess)) + 1


def _to_exponent(masses: np.ndarray, saved: float, wanted: float) -> np.ndarray:
    """Convert masses p^saved to p^wanted; an exponent of 0 lost the priorities, which become 1."""
    if saved == wanted:
        return masses
    return masses ** (wanted / saved) if saved else np.ones_like(masses)
