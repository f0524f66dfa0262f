"""Dispatch of episodes: hands the seeds of jobs to the workers."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from actors.errors import ActorError, RolloutTimeout
from actors.pool import watched
from actors.pool.jobs import Job
from actors.pool.metrics import PoolMetrics
from actors.pool.supervisor import Supervisor, Worker, WorkerGone
from actors.rollout.results import to_keep


class Dispatcher:
    """Plays jobs on the workers of a supervisor, at most `episodes_at_once` episodes per worker.

    stored_episodes, stored_turns: what replay holds of all jobs so far.
    """

    def __init__(self, supervisor: Supervisor, episodes_at_once: int, metrics: PoolMetrics) -> None:
        self._sup = supervisor
        self._episodes_at_once = episodes_at_once
        self.stored_episodes = self.stored_turns = 0
        self._metrics = metrics

    def start(self, job: Job) -> asyncio.Task[None]:
        """Start `job`, or continue it after a failure."""
        job.failure, job.stopped = None, False
        return self._watched(self._run(job), job)

    async def wait(self, job: Job, episodes: int, timeout_s: float | None) -> None:
        """Wait until `episodes` of the job have finished since its last report.

        Raises the error that made the job fail, StaleWorkersError, or RolloutTimeout.
        """

        def over() -> bool:
            stranded = self._sup.stranded() and job.in_flight == 0
            return job.finished >= episodes or job.failure is not None or stranded

        try:
            await self._sup.wait_for(over, timeout_s, "episodes did not finish")
        except RolloutTimeout as error:
            raise RolloutTimeout(f"{error} ({job.finished} of {episodes} episodes finished)") from None
        if job.finished < episodes:
            raise job.failure or self._sup.stale_error()

    async def _run(self, job: Job) -> None:
        """Start the job's episodes, each on the least busy worker, until the job stops or fails."""
        while True:
            async with self._sup.changed:
                await self._sup.changed.wait_for(lambda: job.ended or (job.admits() and self._free()))
            if job.ended:
                return
            worker = self._free()
            assert worker is not None
            worker.playing += 1
            self._watched(self._play(worker, job, job.take()), job)

    async def _play(self, worker: Worker, job: Job, seed: int) -> None:
        keep = to_keep(seed, job.group, job.keep_every)
        call = self._sup.call(worker, "play", seed, job.greedy, job.store, job.group, keep)
        outcome: Any = (await asyncio.gather(call, return_exceptions=True))[0]
        if isinstance(outcome, WorkerGone):
            job.lose(seed)
            self._metrics.lost.inc()
        elif isinstance(outcome, BaseException):
            job.fail(seed, outcome)
        else:
            job.finish(outcome)
            if job.store and outcome.failure is None:
                self.stored_episodes += 1
                self.stored_turns += outcome.turns
        worker.playing -= 1
        await self._sup.notify()

    def _watched(self, coroutine: Coroutine[Any, Any, None], job: Job) -> asyncio.Task[None]:
        """Start a task of the job. The job fails with it: those who wait for its episodes would wait for ever."""

        def failed(error: BaseException) -> None:
            job.failure = job.failure or ActorError(f"the dispatch of episodes failed: {error!r}")
            self._sup.announce()

        return watched.start(coroutine, failed)

    def _free(self) -> Worker | None:
        """Return the ready worker with the fewest episodes, or None if all are full."""
        ready = [w for w in self._sup.ready() if w.playing < self._episodes_at_once]
        return min(ready, key=lambda w: w.playing, default=None)
