"""The pool of rollout workers: a Ray actor that spreads episodes and requests over them and outlives each of them.

No episode that replay has acknowledged is lost, and none is stored twice: an episode whose worker died is played
again under the same id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayTaskError

from actors.errors import ActorError, RolloutTimeout, StaleWorkersError
from actors.pool.client import PoolClient
from actors.pool.fifo_gate import Gate
from actors.pool.jobs import Batch, Job, Stream
from actors.pool.supervisor import WORKER_ENDED, Supervisor, Worker
from actors.rollout.results import EpisodeResult
from actors.rollout.worker import WorkerArgs
from buffer.node_affinity import this_node
from buffer.rollout_records import CollectReport, FreshActions, ProbeAnswer, WorkerStatus

T = TypeVar("T")

# Actions asked of a worker at once, in sequences that its engine decodes at once: enough that the engine is full while
# a request's last actions end. What is asked for beyond that waits here, where it is not yet counted as hanging.
ACTING_AHEAD = 8


class RolloutPool:
    """An async Ray actor. Callers hold a `PoolClient`."""

    def __init__(self, args: WorkerArgs) -> None:
        self._args = args
        self._config = args.config
        self._batches: dict[tuple[int, int, int, bool, bool], Batch] = {}
        self._stream: Stream | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        at_once = ACTING_AHEAD * self._config.engine.max_num_seqs
        self._acting = Gate(lambda: at_once * max(1, len(self._sup.ready())))
        self._sup: Supervisor

    async def start(self) -> None:
        """Start the workers; `ready` waits for them."""
        self._sup = Supervisor(self._args)
        await self._sup.resize(self._config.workers)

    async def ready(self, timeout_s: float) -> None:
        """Return when every worker has come up."""
        await self._sup.wait_for(
            lambda: len(self._sup.alive()) == len(self._sup.workers), timeout_s, "rollout workers did not come up"
        )

    # Episodes

    async def collect(
        self, episodes: int, first_seed: int, group: int, store: bool, greedy: bool, timeout_s: float | None
    ) -> CollectReport:
        """See `PoolClient.collect`. After StaleWorkersError the same call goes on where this one stopped."""
        key = (episodes, first_seed, group, store, greedy)
        job = self._batches.setdefault(key, Batch(episodes, first_seed, greedy=greedy, store=store, group=group))
        job.resume()
        run = asyncio.create_task(self._run(job))
        try:
            await self._wait(
                job, lambda: job.complete, timeout_s, lambda: f"{job.finished} of {episodes} episodes came"
            )
        finally:
            job.stopped = True
            run.cancel()
        del self._batches[key]
        return job.report()

    async def start_stream(self, first_seed: int, episodes_per_version: int, max_staleness: int, group: int) -> None:
        if self._stream is not None:
            raise ActorError("rollouts are running already; stop them first")
        self._stream = Stream(
            first_seed,
            self._sup.version,
            episodes_per_version=episodes_per_version,
            max_staleness=max_staleness,
            group=group,
        )
        self._keep(asyncio.create_task(self._run(self._stream)))

    async def stop_stream(self) -> None:
        """Start no further episodes, and wait for those in flight."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        stream.stopped = True
        await self._sup.notify()
        await self._sup.wait_for(
            lambda: not stream.playing or stream.failure,
            self._config.request_timeout_s,
            "episodes in flight did not end",
        )

    async def report(self, at_least: int, timeout_s: float) -> CollectReport:
        stream = self._stream
        if stream is None:
            raise ActorError("no rollouts are running; call start first")
        await self._wait(
            stream,
            lambda: stream.finished >= at_least,
            timeout_s,
            lambda: f"{stream.finished} of {at_least} episodes came",
        )
        return stream.report()

    async def _wait(self, job: Job, done: Any, timeout_s: float | None, progress: Any) -> None:
        """Wait for `done()`. Raises what failed the job, StaleWorkersError, RolloutTimeout."""
        sup = self._sup

        def over() -> bool:
            return done() or job.failure is not None or (sup.stranded() and job.playing == 0)

        try:
            await sup.wait_for(over, timeout_s, "episodes did not finish")
        except RolloutTimeout as error:
            raise RolloutTimeout(f"{error} ({progress()})") from None
        if done():
            return
        if job.failure is not None:
            raise job.failure
        raise self._stale()

    async def _run(self, job: Job) -> None:
        """Hand the job's seeds to the workers, the least busy first, until it has no more."""
        sup = self._sup
        job.stopped = False
        while not (job.stopped or job.failure):
            async with sup.changed:
                await sup.changed.wait_for(lambda: job.stopped or (job.admits() and self._free() is not None))
            worker = self._free()
            if job.stopped or worker is None or not job.admits():
                continue
            worker.playing += 1
            self._keep(asyncio.create_task(self._play(worker, job, job.take())))

    async def _play(self, worker: Worker, job: Job, seed: int) -> None:
        incarnation = worker.incarnation
        assert worker.handle is not None
        answer = self._ask(worker.handle.play.remote(seed, job.greedy, job.store, job.group))
        outcome = (await asyncio.gather(answer, return_exceptions=True))[0]
        if isinstance(outcome, EpisodeResult):
            job.finish(outcome)
        elif isinstance(outcome, (*WORKER_ENDED, TimeoutError)):
            # The supervisor sees a death by itself; a worker that hangs it can't see.
            job.lose(seed)
            await self._sup.fail(worker, incarnation)
        else:
            job.drop(seed, outcome)
        worker.playing -= 1
        await self._sup.notify()

    def _free(self) -> Worker | None:
        """The ready worker with the most room."""
        ready = [w for w in self._sup.ready() if w.playing < self._config.episodes_at_once]
        return min(ready, key=lambda w: w.playing, default=None)

    # Fresh actions

    async def request(
        self, tokens: np.ndarray, offsets: np.ndarray, counts: np.ndarray, logprobs: bool
    ) -> FreshActions:
        """`counts` actions for each state; requests are answered in about the order in which they come.

        tokens: int32 [total]; offsets: int64 [states + 1]; counts: int32 [states]. Raises StaleWorkersError.
        """
        async with self._acting.through(int(counts.sum())):
            return await self._spread(tokens, offsets, counts, logprobs)

    async def _spread(
        self, tokens: np.ndarray, offsets: np.ndarray, counts: np.ndarray, logprobs: bool
    ) -> FreshActions:
        """Split a request over the ready workers by tokens."""
        await self._sup.wait_for(
            lambda: self._sup.ready() or self._sup.stranded(),
            self._config.engine.startup_timeout_s,
            "no worker came up to write actions",
        )
        ready = self._sup.ready()
        if not ready:
            raise self._stale()
        cuts = _cuts(offsets, len(ready))
        parts = [
            self._act(worker, tokens, offsets[a : b + 1], counts[a:b], logprobs)
            for worker, a, b in zip(ready, cuts[:-1], cuts[1:], strict=True)
            if a < b
        ]
        return FreshActions.join(await asyncio.gather(*parts))

    async def _act(
        self, worker: Worker, tokens: np.ndarray, offsets: np.ndarray, counts: np.ndarray, logprobs: bool
    ) -> FreshActions:
        """One worker's share; where it dies, the others take the share over."""
        incarnation = worker.incarnation
        assert worker.handle is not None
        start = int(offsets[0])
        part, bounds = tokens[start : int(offsets[-1])], offsets - start
        worker.acting += 1
        try:
            return await self._ask(worker.handle.act.remote(part, bounds, counts, logprobs))
        except (*WORKER_ENDED, TimeoutError):
            await self._sup.fail(worker, incarnation)
        finally:
            worker.acting -= 1
            await self._sup.notify()
        return await self._spread(part, bounds, counts, logprobs)

    # Weights

    async def engines(self, timeout_s: float) -> list[tuple[str, str, ActorHandle]]:
        """Name, incarnation and actor of each worker that can take weights; waits until there is one."""
        await self._sup.wait_for(self._sup.alive, timeout_s, "no engine came up to take weights")
        return [(w.name, w.incarnation, w.handle) for w in self._sup.alive() if w.handle is not None]

    async def engine_failed(self, incarnation: str) -> None:
        for worker in self._sup.workers:
            await self._sup.fail(worker, incarnation)

    async def weights_arrived(self, incarnations: list[str], version: int) -> None:
        await self._sup.weights_arrived(incarnations, version)
        if self._stream is not None:
            self._stream.version = version
            await self._sup.notify()

    async def probe(self, tokens: np.ndarray, timeout_s: float) -> list[ProbeAnswer]:
        """The answer of each ready worker that is alive at the end. Raises StaleWorkersError where none is."""
        answers = await asyncio.gather(*(self._probe(w, tokens, timeout_s) for w in self._sup.ready()))
        found = [answer for answer in answers if answer is not None]
        if not found:
            raise self._stale()
        return found

    async def _probe(self, worker: Worker, tokens: np.ndarray, timeout_s: float) -> ProbeAnswer | None:
        incarnation = worker.incarnation
        assert worker.handle is not None
        try:
            return await self._ask(worker.handle.probe.remote(tokens), timeout_s)
        except (*WORKER_ENDED, TimeoutError):
            await self._sup.fail(worker, incarnation)
            return None

    # The pool itself

    async def resize(self, workers: int) -> None:
        await self._sup.resize(workers)

    async def workers(self) -> list[WorkerStatus]:
        return self._sup.status()

    async def handles(self) -> list[tuple[str, ActorHandle]]:
        """Name and actor of each worker that has one."""
        return [(w.name, w.handle) for w in self._sup.workers if w.handle is not None]

    async def metrics_targets(self) -> list[tuple[str, str, str]]:
        """(role, name, address) of each worker's metrics endpoint."""
        return [("rollout", w.name, w.info.metrics) for w in self._sup.alive() if w.info is not None]

    async def window(self) -> int:
        """The engines' window in tokens."""
        return min(w.info.window for w in self._sup.alive() if w.info is not None)

    async def shutdown(self) -> None:
        if self._stream is not None:
            self._stream.stopped = True
        await self._sup.shutdown()

    # Parts

    async def _ask(self, reference: Awaitable[T], timeout_s: float | None = None) -> T:
        """The worker's answer, its own errors as they were raised there."""
        try:
            return await asyncio.wait_for(reference, timeout_s or self._config.request_timeout_s)
        except RayTaskError as error:
            if isinstance(error.cause, Exception):
                raise error.cause from None
            raise

    def _stale(self) -> StaleWorkersError:
        return StaleWorkersError(
            f"no worker holds policy version {self._sup.version}: {self._sup.describe()}. Broadcast the weights again"
        )

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _cuts(offsets: np.ndarray, parts: int) -> list[int]:
    """State indices that cut the request into `parts` of about as many tokens each."""
    targets = offsets[0] + (offsets[-1] - offsets[0]) * np.arange(parts + 1) / parts
    cuts = np.searchsorted(offsets, targets)
    cuts[0], cuts[-1] = 0, len(offsets) - 1
    return [int(cut) for cut in cuts]


def start_pool(args: WorkerArgs, *, wait: bool = True) -> PoolClient:
    """Start the pool and its workers, and wait until all have come up. Raises ActorError.

    With `wait=False` the workers come up meanwhile, and `PoolClient.ready` waits for them. The pool ends with the
    driver, or with `PoolClient.shutdown`.
    """
    pool = ray.remote(RolloutPool).options(num_cpus=0, max_concurrency=10_000, scheduling_strategy=this_node())
    actor = pool.remote(args)
    client = PoolClient(actor, args.config)
    try:
        client.start_workers()
        if wait:
            client.ready(args.config.engine.startup_timeout_s)
    except ActorError:
        client.shutdown()
        raise
    return client


__all__ = ["PoolClient", "RolloutPool", "WorkerArgs", "start_pool"]
