"""What the client gives out: samples and counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

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
