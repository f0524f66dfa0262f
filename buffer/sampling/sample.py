"""What the client gives out: samples and counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import pyarrow as pa

from buffer.episodes.packing import turns_of, unpack
from buffer.episodes.schema import Episode
from buffer.sampling.draws import Draws


@dataclass(frozen=True)
class Stats:
    """Counts of the whole replay at about one moment."""

    episodes: int
    """Held."""
    turns: int
    """Held."""
    inserted_episodes: int
    """Ever inserted, like the next two, over restarts too."""
    inserted_turns: int
    sampled_turns: int
    bytes: int
    """Of the rows held in memory and their messages."""
    evicted: int
    """Episodes inserted and no longer held."""


@dataclass(frozen=True)
class Part:
    """What one shard gave of a sample."""

    shard: int
    batches: Sequence[pa.RecordBatch]
    draws: Draws
    share: float = 1.0
    """How likely a draw was to come from this shard."""


class Sample:
    """n draws, with replacement: which episode and which of its turns.

    Episodes travel once however often they were drawn, and become objects only when `episodes` is read.
    """

    def __init__(
        self,
        batches: Sequence[pa.RecordBatch],
        rows: np.ndarray,
        turns: np.ndarray,
        *,
        shards: np.ndarray,
        seqs: np.ndarray,
        probabilities: np.ndarray,
        population: int,
    ) -> None:
        self.batches = list(batches)
        """The distinct episodes in the layout of `buffer.rows`."""
        self.rows = rows
        """int32[n], index of each draw's episode among the rows of `batches`."""
        self.turns = turns
        """int32[n], the turn drawn; -1 where whole episodes were drawn."""
        self.shards = shards
        """int32[n], the shard that each draw came from."""
        self.seqs = seqs
        """int64[n], the number of the episode in its shard's history."""
        self.probabilities = probabilities
        """float64[n], with which each was drawn; 1 where chance had no part."""
        self.population = population
        """Turns or episodes that were drawn from."""

    @classmethod
    def joined(cls, parts: Sequence[Part], *, population: int) -> Self:
        """One sample of what several shards gave, in their order."""
        batches: list[pa.RecordBatch] = []
        rows, base = [np.empty(0, np.int32)], 0
        for part in parts:
            batches.extend(part.batches)
            rows.append(part.draws.rows + base)
            base += sum(batch.num_rows for batch in part.batches)
        turns = [np.empty(0, np.int32), *(part.draws.turns for part in parts)]
        shards = [np.empty(0, np.int32), *(np.full(len(part.draws), part.shard, np.int32) for part in parts)]
        seqs = [np.empty(0, np.int64), *(part.draws.seqs for part in parts)]
        chances = [np.empty(0), *(part.draws.probabilities * part.share for part in parts)]
        return cls(
            batches,
            np.concatenate(rows).astype(np.int32),
            np.concatenate(turns),
            shards=np.concatenate(shards),
            seqs=np.concatenate(seqs),
            probabilities=np.concatenate(chances),
            population=population,
        )

    def reordered(self, order: np.ndarray) -> "Sample":
        """The same draws, draw i being what `order[i]` was."""
        return Sample(
            self.batches,
            self.rows[order],
            self.turns[order],
            shards=self.shards[order],
            seqs=self.seqs[order],
            probabilities=self.probabilities[order],
            population=self.population,
        )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def turns_drawn(self) -> int:
        """Turns that count as sampled: of an episode all of them, every time it was drawn."""
        if len(self) == 0 or self.turns[0] >= 0:
            return len(self)
        turns = np.concatenate([turns_of(batch) for batch in self.batches])
        return int(turns[self.rows].sum())

    def importance_weights(self, exponent: float) -> np.ndarray:
        """float32[n], (N P(i))^-exponent over the largest of the sample: by how much each draw's loss counts.

        N is `population`, P `probabilities`; 1 undoes the sampler's preference wholly, 0 not at all (Schaul et al.,
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
        """Episode of each draw, n long; the same object where it was drawn again."""
        return [self.distinct[row] for row in self.rows]
