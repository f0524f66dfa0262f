"""What a shard drew: for each draw which row, which turn and how likely it was, as it crosses the wire."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from buffer.sampling.request import Sampler, Unit

_DRAW = np.dtype([("row", np.int32), ("turn", np.int32), ("seq", np.int64), ("probability", np.float64)])
_UPDATE = np.dtype([("seq", np.int64), ("turn", np.int32), ("priority", np.float64)])
_HEAD = np.dtype([("episodes", np.int64), ("turns", np.int64), ("mass", np.float64), ("shards", np.int64)])


@dataclass(frozen=True)
class Held:
    """What of a view a shard holds at one moment."""

    episodes: int = 0
    turns: int = 0
    mass: float = 0.0
    """The sum of the turns' priorities, each to the power of `priority_exponent`."""

    def weight(self, unit: Unit, sampler: Sampler) -> float:
        """How much of a sample this shard's part gets, in proportion."""
        if sampler == "prioritised":
            return self.mass
        return float(self.turns if unit == "turn" else self.episodes)


@dataclass(frozen=True)
class Draws:
    """n draws from one shard."""

    rows: np.ndarray
    """int32[n], index among the distinct rows that travel with them."""
    turns: np.ndarray
    """int32[n], -1 where whole episodes were drawn."""
    seqs: np.ndarray
    """int64[n], number of the row in the shard's history."""
    probabilities: np.ndarray
    """float64[n], probability of this draw among all draws of this shard; 1 in a sweep."""
    held: Held
    """What it was drawn from."""
    shards: int = 1
    """How many shards there are, as far as this one knows."""

    def __len__(self) -> int:
        return len(self.rows)

    def to_bytes(self) -> bytes:
        """For `from_bytes`."""
        draws = np.empty(len(self), _DRAW)
        for name, values in zip(_DRAW.names or (), (self.rows, self.turns, self.seqs, self.probabilities), strict=True):
            draws[name] = values
        head = np.array((self.held.episodes, self.held.turns, self.held.mass, self.shards), _HEAD)
        return head.tobytes() + draws.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` wrote."""
        ((episodes, turns, mass, shards),) = np.frombuffer(data, _HEAD, 1).tolist()
        draws = np.frombuffer(data, _DRAW, offset=_HEAD.itemsize)
        return cls(draws["row"], draws["turn"], draws["seq"], draws["probability"], Held(episodes, turns, mass), shards)


@dataclass(frozen=True)
class PriorityUpdate:
    """New priorities of k turns of one shard."""

    seqs: np.ndarray
    """int64[k]"""
    turns: np.ndarray
    """int32[k]"""
    priorities: np.ndarray
    """float64[k], absolute TD errors."""

    def to_bytes(self) -> bytes:
        """For `from_bytes`."""
        update = np.empty(len(self.seqs), _UPDATE)
        update["seq"], update["turn"], update["priority"] = self.seqs, self.turns, self.priorities
        return update.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` wrote."""
        update = np.frombuffer(data, _UPDATE)
        return cls(update["seq"], update["turn"], update["priority"])
