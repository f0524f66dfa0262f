"""Feeds a phase: samples from replay, fresh actions from the engines, both ahead of need.

The policy is frozen within a phase, so the fresh actions of later steps can be written while the learner is at
work on earlier ones. `prefetch_steps` bounds how far ahead.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import TYPE_CHECKING

from learner.algorithms.base import Phase
from learner.collective import Leader
from learner.config import LearnerConfig
from learner.errors import WaitTimeoutError
from learner.rows import Row, attach_fresh, deal, prompts, rows_from_samples

if TYPE_CHECKING:
    from learner.protocols import FreshActions, RolloutService, SampleSource


@dataclass(frozen=True)
class Batch:
    """One rank's share of a global batch.

    Attributes:
        micro_batches: rows of this rank.
        samples: samples of the global batch.
        waited_s: seconds that rank 0 waited for fresh actions.
    """

    micro_batches: list[list[Row]]
    samples: int
    waited_s: float


@dataclass
class _Pending:
    """Rows whose fresh actions are under way; None where they are not asked for yet."""

    rows: list[Row]
    fresh: Future[FreshActions] | None = None


class Feeder:
    """Gives the batches of a phase, on each rank its own share."""

    def __init__(self, replay: SampleSource, rollouts: RolloutService, leader: Leader, config: LearnerConfig) -> None:
        self._replay = replay
        self._rollouts = rollouts
        self._leader = leader
        self._config = config

    def batches(self, phase: Phase, version: int) -> Iterator[Batch]:
        """All batches of `phase`, `phase.epochs` times over.

        Args:
            version: the current policy version, from which `phase.max_staleness` counts back.
        """
        pending: deque[_Pending] = deque()
        drawn = 0
        kept: list[Batch] = []

        def next_batch() -> list[Batch]:
            nonlocal drawn
            while drawn < phase.steps and len(pending) < self._config.prefetch_steps:
                pending.append(_Pending(self._draw(phase, version)))
                drawn += 1
            try:
                for item in pending:
                    if phase.fresh and item.fresh is None:
                        item.fresh = self._rollouts.request(prompts(item.rows), phase.fresh)
                batch = self._complete(pending[0])
            except self._rollouts.stale_error:
                # The engines are about to get new weights: what is under way is asked for again.
                for item in pending:
                    item.fresh = None
                raise
            pending.popleft()
            return batch

        for _ in range(phase.steps):
            batch = self._leader.scatter(next_batch)
            if phase.epochs > 1:
                kept.append(batch)
            yield batch
        for _ in range(phase.epochs - 1):
            yield from kept

    def _draw(self, phase: Phase, version: int) -> list[Row]:
        limited = phase.max_staleness is not None
        sample = self._replay.sample(
            phase.batch,
            view="actor" if limited else "critic",
            unit=phase.unit,
            min_version=max(version - (phase.max_staleness or 0), 0) if limited else None,
            timeout_s=self._config.timeout_s,
        )
        return rows_from_samples(sample.episodes, sample.turns)

    def _complete(self, item: _Pending) -> list[Batch]:
        started = time.monotonic()
        if item.fresh is not None:
            try:
                actions = item.fresh.result(self._config.timeout_s)
            except FutureTimeoutError as error:
                raise WaitTimeoutError(
                    f"no fresh actions within {self._config.timeout_s:.0f} s from {_names(self._rollouts)}; see the "
                    "workers' logs, or raise learner.timeout_s"
                ) from error
            attach_fresh(item.rows, actions)
        waited = time.monotonic() - started
        samples = sum(len(row.turns) for row in item.rows)
        shares = deal(item.rows, self._leader.ranks, self._config.micro_batch)
        return [Batch(share, samples, waited) for share in shares]


def _names(rollouts: RolloutService) -> str:
    workers = [f"{w.name} ({'ready' if w.ready else 'not ready'})" for w in rollouts.workers()]
    return ", ".join(workers) or "any worker: there is none"
