"""Sweeps: each episode is in the batches of one cycle only, and a group of episodes is swept together.

In async mode an episode stays in the window of recent policy versions for several cycles. The first sweep that finds it
takes it, and no later sweep does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from buffer.client.base import BaseClient
from buffer.episodes.schema import Episode
from learner.algorithms.phases import Sweep
from learner.config import LearnerConfig
from learner.passes.rows import Batch, rows_from_samples, split
from learner.ranks import Leader


class Sweeps:
    """Makes the batches of sweeps and remembers the swept episodes while replay may still return them.

    Args:
        taken: ids of the episodes that earlier sweeps took; used on rank 0.
    """

    def __init__(self, replay: BaseClient, leader: Leader, config: LearnerConfig, taken: Iterable[str] = ()) -> None:
        self._replay = replay
        self._leader = leader
        self._config = config
        self.taken = set(taken)

    def batches(self, sweep: Sweep, version: int, seed: int) -> list[Batch]:
        """Return this rank's batches of a sweep, split at random by `seed`.

        Each batch has about `sweep.batch` episodes, and at least one for each rank. The list is empty if earlier sweeps
        took all episodes of the window, or all but fewer than there are ranks. Called on every rank.
        """
        ranks = self._leader.ranks

        def prepare() -> list[list[Batch]]:
            window = self._replay.sweep(
                view="actor", min_version=max(version - sweep.max_staleness, 0), timeout_s=self._config.timeout_s
            )
            episodes = self.take(window, group=sweep.group, at_least=ranks)
            if not episodes:
                return [[] for _ in range(ranks)]
            rows = rows_from_samples(episodes, np.full(len(episodes), -1))
            order = np.random.default_rng(seed).permutation(len(rows))
            pieces = max(1, min(round(len(rows) / sweep.batch), len(rows) // ranks))
            parts = [[rows[i] for i in piece] for piece in np.array_split(order, pieces)]
            batches = [split(part, ranks, self._config.micro_batch) for part in parts]
            return [[batch[rank] for batch in batches] for rank in range(ranks)]

        return self._leader.scatter(prepare)

    def take(self, window: Sequence[Episode], *, group: int = 1, at_least: int = 1) -> list[Episode]:
        """Return the episodes of `window` that no sweep has taken, and mark them as taken.

        Args:
            group: number of episodes of one environment seed that are taken together. An incomplete group waits for
                the members that are still being played.
            at_least: if there are fewer episodes than this, none is taken.
        """
        new = [episode for episode in window if episode.episode_id not in self.taken]
        sizes = Counter(episode.seed for episode in new)
        new = [episode for episode in new if sizes[episode.seed] >= group]
        if len(new) < at_least:
            new = []
        # Episodes that have left the window do not return.
        self.taken &= {episode.episode_id for episode in window}
        self.taken |= {episode.episode_id for episode in new}
        return new
