"""A sum tree over consecutive positions: draws in proportion to mass, and updates, in logarithmic time.

Each node sums 64 children, so a million positions make four levels, and a batch of draws descends them in a few numpy
calls. A node is always recomputed from its children and never adjusted, so rounding errors do not accumulate.
"""

import numpy as np

_FAN = 64


class SumTree:
    """Masses >= 0 of the positions `first` to `end`; positions are appended at the end and dropped at the front."""

    def __init__(self) -> None:
        self.first = 0
        self.end = 0
        self._levels = _levels(_FAN)

    @property
    def total(self) -> float:
        """The sum of all masses."""
        return float(self._levels[-1].sum())

    def extend(self, masses: np.ndarray) -> None:
        """Append masses [k]."""
        held = self.end - self.first + len(masses)
        if held > len(self._levels[0]):
            self._grow(held)
        self.end += len(masses)
        self.set(np.arange(self.end - len(masses), self.end), masses)

    def drop(self, count: int) -> None:
        """Drop the oldest `count` positions."""
        self.set(np.arange(self.first, self.first + count), np.zeros(count))
        self.first += count

    def set(self, positions: np.ndarray, masses: np.ndarray) -> None:
        """Give positions [k] new masses [k]; the last one wins if a position occurs twice."""
        nodes = positions % len(self._levels[0])
        self._levels[0][nodes] = masses
        for below, above in zip(self._levels, self._levels[1:], strict=False):
            nodes = np.unique(nodes // _FAN)
            above[nodes] = below.reshape(-1, _FAN)[nodes].sum(axis=1)

    def masses(self, positions: np.ndarray) -> np.ndarray:
        """Return float64[k], the masses of positions [k]."""
        return self._levels[0][positions % len(self._levels[0])]

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return int64[count], positions drawn in proportion to mass with replacement. The total must be above 0."""
        left = rng.random(count) * self.total
        node = np.zeros(count, dtype=np.int64)
        for level in reversed(self._levels):
            children = level.reshape(-1, _FAN)[node]
            sums = np.cumsum(children, axis=1)
            # If rounding puts a draw beyond the last child, the last child with mass gets it.
            last = _FAN - 1 - np.argmax(children[:, ::-1] > 0, axis=1)
            child = np.minimum((sums <= left[:, None]).sum(axis=1), last)
            at = (np.arange(count), child)
            left = np.maximum(left - (sums[at] - children[at]), 0.0)
            node = node * _FAN + child
        # Position p has slot p % slots.
        slots = len(self._levels[0])
        return self.first + (node - self.first) % slots

    def _grow(self, held: int) -> None:
        positions = np.arange(self.first, self.end)
        masses = self.masses(positions)
        self._levels = _levels(max(held, 2 * len(self._levels[0])))
        self.set(positions, masses)


def _levels(slots: int) -> list[np.ndarray]:
    """Return levels of zeros, from at least `slots` leaves up to the children of one node."""
    levels = []
    while True:
        nodes = -(-slots // _FAN)
        levels.append(np.zeros(nodes * _FAN))
        if nodes == 1:
            return levels
        slots = nodes
