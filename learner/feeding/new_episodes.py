"""The new episodes of a cycle, on which no step has trained yet, for diagnoses of the critic."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from buffer.client.base import BaseClient
from buffer.errors import EmptyViewError
from learner.config import LearnerConfig
from learner.feeding.sweeps import Sweeps
from learner.passes.rows import Row, rows_from_samples, split
from learner.ranks import Leader


class NewEpisodes:
    """Returns the episodes that have come into replay since the last call.

    In sync mode no step has trained on them. In async mode a critic phase that was running when they came may have.

    Args:
        staleness: most policy versions by which the episodes may be behind.
        seen: ids of the episodes that earlier calls found; used on rank 0.
    """

    def __init__(
        self, replay: BaseClient, leader: Leader, config: LearnerConfig, staleness: int, seen: Iterable[str] = ()
    ) -> None:
        self._replay = replay
        self._leader = leader
        self._config = config
        self._staleness = staleness
        self._sweeps = Sweeps(replay, leader, config, seen)

    @property
    def seen(self) -> list[str]:
        """Ids of the episodes that were found and that replay may return again; empty on other ranks than 0."""
        return sorted(self._sweeps.taken)

    def micro_batches(
        self, version: int, seed: int, attach: Callable[[list[Row]], list[Row]] = list
    ) -> list[list[Row]]:
        """Return this rank's share of the new episodes, of which `diagnosis_episodes` are chosen at random by `seed`.

        Each row has all turns of its episode. The list is empty if there are fewer new episodes than ranks. Called on
        every rank.

        Args:
            attach: returns the rows with the fresh actions that the diagnosis reads, by default none; called on rank 0.
        """
        ranks = self._leader.ranks
        rows: list[Row] | None = None

        def prepare() -> list[list[list[Row]]]:
            # An attempt that finds no engine with the current weights is repeated, after the episodes were taken.
            nonlocal rows
            rows = self._take(version, seed) if rows is None else rows
            ready = attach(rows)
            if len(ready) < ranks:
                return [[] for _ in range(ranks)]
            return [batch.micro_batches for batch in split(ready, ranks, self._config.micro_batch)]

        return self._leader.scatter(prepare)

    def _take(self, version: int, seed: int) -> list[Row]:
        try:
            window = self._replay.sweep(
                view="actor",
                min_version=max(version - self._staleness, 0),
                timeout_s=self._config.timeout_s,
                counted=False,
            )
        except EmptyViewError:
            window = []
        new = self._sweeps.take(window)
        order = np.random.default_rng(seed).permutation(len(new))[: self._config.diagnosis_episodes]
        return rows_from_samples([new[i] for i in sorted(order)], np.full(len(order), -1))
