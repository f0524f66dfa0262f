"""What the client gives out: samples and counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import pyarrow as pa

from buffer.schema import Episode, batch_to_episodes
from buffer.wire import to_lists


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
    """Of the columns held in memory."""
    evicted: int
    """Episodes inserted and no longer held."""


class Sample:
    """n draws, with replacement: which episode and which of its turns.

    Episodes travel once however often they were drawn, and become objects only when `episodes` is read.
    """

    def __init__(self, batches: Sequence[pa.RecordBatch], rows: np.ndarray, turns: np.ndarray) -> None:
        self.batches = list(batches)
        """The distinct episodes in the layout of `buffer.wire`."""
        self.rows = rows
        """int32[n], index of each draw's episode among the rows of `batches`."""
        self.turns = turns
        """int32[n], the turn drawn; -1 where whole episodes were drawn."""

    @classmethod
    def joined(cls, parts: Sequence[tuple[Sequence[pa.RecordBatch], np.ndarray, np.ndarray]]) -> Self:
        """One sample of what several shards gave, each (batches, rows, turns), in their order."""
        batches: list[pa.RecordBatch] = []
        rows, base = [np.empty(0, np.int32)], 0
        for part, part_rows, _ in parts:
            batches.extend(part)
            rows.append(part_rows + base)
            base += sum(batch.num_rows for batch in part)
        turns = [np.empty(0, np.int32), *(part_turns for _, _, part_turns in parts)]
        return cls(batches, np.concatenate(rows).astype(np.int32), np.concatenate(turns))

    def reordered(self, order: np.ndarray) -> "Sample":
        """The same draws, draw i being what `order[i]` was."""
        return Sample(self.batches, self.rows[order], self.turns[order])

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def distinct(self) -> list[Episode]:
        """The distinct episodes, once each."""
        return [episode for batch in self.batches for episode in batch_to_episodes(to_lists(batch))]

    @cached_property
    def episodes(self) -> list[Episode]:
        """Episode of each draw, n long; the same object where it was drawn again."""
        return [self.distinct[row] for row in self.rows]
