"""Results: what a shard draws, in a binary form for the network, and the samples and counts that clients return."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import pyarrow as pa

from buffer.episodes.packing import turns_of, unpack
from buffer.episodes.schema import Episode
from buffer.sampling.request import Sampler, Unit

_DRAW = np.dtype([("row", np.int32), ("turn", np.int32), ("seq", np.int64), ("probability", np.float64)])
_HEAD = np.dtype([("episodes", np.int64), ("turns", np.int64), ("mass", np.float64), ("shards", np.int64)])

PRIORITY_UPDATE = np.dtype([("seq", np.int64), ("turn", np.int32), ("priority", np.float64)])
"""New priorities of turns of one shard: `seq` names the row, `priority` is the absolute TD error."""


@dataclass(frozen=True)
class Held:
    """How much of a view a shard holds at one moment."""

    episodes: int = 0
    turns: int = 0
    mass: float = 0.0
    """Sum of the turns' priorities, each to the power of `priority_exponent`; 0 unless the sampler is prioritised."""

    def weight(self, unit: Unit, sampler: Sampler) -> float:
        """Return the shard's weight in the split of a sample over shards."""
        if sampler == "prioritised":
            return self.mass
        return float(self.turns if unit == "turn" else self.episodes)


@dataclass(frozen=True)
class Draws:
    """n draws from one shard."""

    rows: np.ndarray  # [n], index of the row among the rows that are returned with the draws
    turns: np.ndarray  # int32[n], the turn; -1 for a whole episode
    seqs: np.ndarray  # int64[n], number of the row in the shard's history
    probabilities: np.ndarray  # float64[n], probability of the draw among all draws of this shard; 1 in a sweep
    held: Held  # What was drawn from
    shards: int = 1  # Number of shards of the replay as this shard knows it

    def __len__(self) -> int:
        return len(self.rows)

    def to_bytes(self, shards: int) -> bytes:
        """Return a form that `from_bytes` reads, with the number of shards."""
        draws = np.empty(len(self), _DRAW)
        for name, values in zip(_DRAW.names or (), (self.rows, self.turns, self.seqs, self.probabilities), strict=True):
            draws[name] = values
        head = np.array((self.held.episodes, self.held.turns, self.held.mass, shards), _HEAD)
        return head.tobytes() + draws.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read the result of `to_bytes`."""
        ((episodes, turns, mass, shards),) = np.frombuffer(data, _HEAD, 1).tolist()
        draws = np.frombuffer(data, _DRAW, offset=_HEAD.itemsize)
        return cls(draws["row"], draws["turn"], draws["seq"], draws["probability"], Held(episodes, turns, mass), shards)


@dataclass(frozen=True)
class Stats:
    """Counts of the whole replay at about one moment."""

    episodes: int  # Episodes held
    turns: int  # Turns held
    inserted_episodes: int  # Episodes ever inserted, also before restarts; likewise the next two
    inserted_turns: int
    sampled_turns: int
    bytes: int  # Bytes of the rows held in memory and of their messages
    evicted: int  # Episodes inserted and no longer held


@dataclass(frozen=True, eq=False)
class Sample:
    """n draws with replacement: an episode and a turn each.

    An episode is transferred once even if it was drawn several times, and is decoded when `episodes` is first read.
    """

    batches: Sequence[pa.RecordBatch]  # The distinct episodes in the layout of `buffer.episodes.packing`
    rows: np.ndarray  # int32[n], index of each draw's episode among the rows of `batches`
    turns: np.ndarray  # int32[n], the turn; -1 for a whole episode
    shards: np.ndarray  # int32[n], the shard of each draw
    seqs: np.ndarray  # int64[n], number of the episode in its shard's history
    probabilities: np.ndarray  # float64[n], probability of each draw over all shards; 1 in a sweep
    population: int  # Number of turns or episodes that were drawn from

    @classmethod
    def of_shard(cls, shard: int, batches: Sequence[pa.RecordBatch], draws: Draws, *, share: float = 1.0) -> Self:
        """Return the draws of one shard; `share` is the probability that a draw comes from it."""
        shards = np.full(len(draws), shard, np.int32)
        chances = draws.probabilities * share
        return cls(batches, draws.rows, draws.turns, shards, draws.seqs, chances, population=len(draws))

    @classmethod
    def joined(cls, parts: Sequence[Self], *, population: int, order: np.ndarray | None = None) -> Self:
        """Return one sample of all `parts`, at least one; draw i is draw `order[i]` of the parts in sequence."""
        sizes = [sum(batch.num_rows for batch in part.batches) for part in parts]
        firsts = (np.cumsum(sizes) - sizes).tolist()
        rows = np.concatenate([part.rows + first for part, first in zip(parts, firsts, strict=True)])
        order = np.arange(len(rows)) if order is None else order
        return cls(
            [batch for part in parts for batch in part.batches],
            rows.astype(np.int32)[order],
            np.concatenate([part.turns for part in parts])[order],
            np.concatenate([part.shards for part in parts])[order],
            np.concatenate([part.seqs for part in parts])[order],
            np.concatenate([part.probabilities for part in parts])[order],
            population,
        )

    @classmethod
    def mixed(cls, parts: Sequence[Self], *, order: np.ndarray) -> Self:
        """Return one sample of parts that were drawn from different populations; `order` as in `joined`.

        `population` is the largest of them, and probabilities are scaled so that `importance_weights` compares each
        draw with a uniform draw from its own population.
        """
        population = max(part.population for part in parts)
        scaled = [replace(part, probabilities=part.probabilities * (part.population / population)) for part in parts]
        return cls.joined(scaled, population=population, order=order)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def turns_drawn(self) -> int:
        """Turns that the limiter counts: one for each drawn turn, all of its turns for each drawn episode."""
        if len(self) == 0 or self.turns[0] >= 0:
            return len(self)
        turns = np.concatenate([turns_of(batch) for batch in self.batches])
        return int(turns[self.rows].sum())

    def importance_weights(self, exponent: float) -> np.ndarray:
        """Return float32[n], (N P(i))^-exponent over the largest of the sample: the weight of each draw's loss.

        N is `population`, P `probabilities`. Exponent 1 corrects the sampler's bias fully, 0 not at all (Schaul et al.,
        ICLR 2016, section 3.4).
        """
        weights = (self.population * self.probabilities) ** -exponent
        return (weights / weights.max(initial=0.0)).astype(np.float32)

    @cached_property
    def distinct(self) -> list[Episode]:
        """The distinct episodes, once each."""
        return [episode for batch in self.batches for episode in unpack(batch)]

    @cached_property
    def episodes(self) -> list[Episode]:
        """The episode of each draw [n]; the same object where an episode was drawn again."""
        return [self.distinct[row] for row in self.rows]
