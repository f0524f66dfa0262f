"""Training episodes that the run folder keeps, for the newest critic to value again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from buffer.archive import read_archive
from buffer.episodes.schema import Episode, batch_to_episodes
from buffer.errors import ReplayError
from learner.config import LearnerConfig
from learner.history.folder import EPISODES, history_files
from learner.passes.rows import Row, rows_from_samples, split
from learner.ranks import Leader

logger = logging.getLogger(__name__)


def kept_micro_batches(
    run: Path, most: int, leader: Leader, config: LearnerConfig, attach: Callable[[list[Row]], list[Row]]
) -> list[list[Row]]:
    """Return this rank's share of `most` kept training episodes, each a row with all its turns.

    The list is empty if there are fewer episodes than ranks. Called on every rank.

    Args:
        attach: returns the rows with the fresh actions that the critic reads; called on rank 0.
    """

    def prepare() -> list[list[list[Row]]]:
        episodes = kept_training(run, most)
        rows = attach(rows_from_samples(episodes, np.full(len(episodes), -1)))
        if len(rows) < leader.ranks:
            return [[] for _ in range(leader.ranks)]
        return [batch.micro_batches for batch in split(rows, leader.ranks, config.micro_batch)]

    return leader.scatter(prepare)


def kept_training(run: Path, most: int) -> list[Episode]:
    """Return up to `most` training episodes of `history/`, evenly spread over the run; damaged files are left out."""
    sizes: dict[Path, int] = {}
    for path in history_files(run, EPISODES):
        if path.name.endswith("-training.parquet"):
            try:
                sizes[path] = pq.read_metadata(path).num_rows
            except (OSError, pa.ArrowInvalid) as error:
                logger.warning("%s is left out: %s", path, error)
    total = sum(sizes.values())
    chosen = np.unique(np.linspace(0, total - 1, min(most, total)).round().astype(np.int64))
    found: list[Episode] = []
    first = 0
    for path, size in sizes.items():
        rows = [int(at) - first for at in chosen if first <= at < first + size]
        first += size
        try:
            found += _rows_of(path, rows) if rows else []
        except (OSError, ReplayError) as error:
            logger.warning("%s is left out: %s", path, error)
    return found


def _rows_of(path: Path, rows: list[int]) -> list[Episode]:
    table = pa.Table.from_batches(read_archive(path)).take(rows)
    return [episode for batch in table.to_batches() for episode in batch_to_episodes(batch)]
