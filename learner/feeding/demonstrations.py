"""Demonstrations: an Arrow file of episodes, read whole, and the batches of behavioural cloning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from buffer.atomic_files import write_atomic
from buffer.episodes.schema import Episode, batch_to_episodes, episodes_to_batch
from learner.algorithms.phases import Draws
from learner.config import LearnerConfig
from learner.errors import LearnerError
from learner.passes.rows import Batch, rows_from_samples, split

if TYPE_CHECKING:
    from learner.ranks import Leader


class DemonstrationSet:
    """The episodes of a file that `write_demonstrations` wrote, drawn uniformly with replacement."""

    def __init__(self, path: Path, seed: int) -> None:
        try:
            with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
                batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        except (FileNotFoundError, pa.ArrowInvalid) as error:
            raise LearnerError(
                f"no demonstrations to clone at {path} ({error}); set demonstrations.episodes, or "
                "learner.clone.steps=0 to start from the model without cloning"
            ) from error
        self._episodes = [episode for batch in batches for episode in batch_to_episodes(batch)]
        self._generator = np.random.default_rng(seed)

    def batches(self, draws: Draws, leader: Leader, config: LearnerConfig) -> Iterator[Batch]:
        """Yield this rank's batches of whole episodes. Called on every rank."""

        def next_batch() -> list[Batch]:
            draws.require_enough(len(self._episodes))
            chosen = self._generator.integers(len(self._episodes), size=draws.batch)
            rows = rows_from_samples([self._episodes[i] for i in chosen], np.full(draws.batch, -1))
            return split(rows, leader.ranks, config.micro_batch)

        for _ in range(draws.steps):
            yield leader.scatter(next_batch)


def write_demonstrations(episodes: Sequence[Episode], path: Path) -> None:
    """Write `episodes` as one Arrow IPC file in the replay schema, whole or not at all."""
    batch, sink = episodes_to_batch(episodes), pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    write_atomic(path, sink.getvalue().to_pybytes())
