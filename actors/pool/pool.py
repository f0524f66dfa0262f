"""The pool of rollout workers: a Ray actor that spreads episodes and requests over the workers and replaces dead ones.

The pool loses no episode that replay has acknowledged and stores none twice: an episode whose worker died is played
again under the same id.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import ray

from actors.errors import ActorError
from actors.pool.client import GRACE_S, PoolClient
from actors.pool.dispatcher import Dispatcher
from actors.pool.fresh_requests import FreshRequests
from actors.pool.jobs import Job
from actors.pool.metrics import PoolMetrics
from actors.pool.supervisor import Supervisor, WorkerGone
from actors.rollout.action_request import ActionRequest
from actors.rollout.player import WorkerArgs
from buffer.flight.memory_stream import Offer
from buffer.node_affinity import this_node
from buffer.rollout_records import CollectReport, FreshActions, ProbeAnswer, Recovery, WorkerStatus
from buffer.telemetry.endpoint import Process


class RolloutPool:
    """An async Ray actor. Callers use it through a `PoolClient`, which documents the methods."""

    def __init__(self, args: WorkerArgs) -> None:
        self._config = args.config
        self._sup = Supervisor(args)
        self._metrics = PoolMetrics(self._sup)
        self._dispatcher = Dispatcher(self._sup, args.config.episodes_at_once, self._metrics)
        self._requests = FreshRequests(self._sup, args.config)
        self._metrics.waiting.set_function(lambda: self._requests.gate.waiting)
        self._address = args.exposure.serve(self._metrics.registry)
        self._collects: dict[tuple[int, int, int, bool, bool, int], Job] = {}
        self._stream: Job | None = None
        self._admitted = 0
        # What a learner that dies may leave behind: the last version that an engine may hold, the engines in the middle
        # of an update, and the seeds that were given out.
        self._sent = args.version
        self._updating: set[str] = set()
        self._given_out = 0

    async def ready(self, timeout_s: float) -> None:
        await self._sup.wait_for(
            lambda: len(self._sup.alive()) >= self._needed(), timeout_s, "rollout workers did not start"
        )

    def _needed(self) -> int:
        """Return the number of workers without which the pool is not ready; an elastic pool waits for no more."""
        workers, config = len(self._sup.workers), self._config
        return min(workers, config.least_workers) if config.is_elastic else workers

    # Episodes

    async def collect(
        self,
        episodes: int,
        first_seed: int,
        group: int,
        store: bool,
        greedy: bool,
        timeout_s: float | None,
        keep_every: int = 0,
    ) -> CollectReport:
        """Play a fixed number of episodes. After an error, the same call continues with the unfinished episodes."""
        key = (episodes, first_seed, group, store, greedy, keep_every)
        end = first_seed + episodes
        new = Job(first_seed, lambda: end, greedy=greedy, store=store, group=group, keep_every=keep_every)
        job = self._collects.setdefault(key, new)
        if store:
            self._given_out = max(self._given_out, first_seed + episodes)
        run = self._dispatcher.start(job)
        try:
            await self._dispatcher.wait(job, episodes, timeout_s)
        finally:
            run.cancel()
        self._collects.pop(key, None)
        return job.report()

    async def start_stream(
        self, first_seed: int, episodes_per_version: int, max_staleness: int, group: int, keep_every: int = 0
    ) -> None:
        if self._stream is not None:
            raise ActorError("rollouts are already running; call stop first")
        first_version = self._sup.version
        self._admitted = 0

        def end() -> int:
            versions = self._sup.version - first_version + max_staleness + 1
            return first_seed + versions * episodes_per_version + self._admitted

        self._stream = Job(first_seed, end, group=group, keep_every=keep_every)
        self._dispatcher.start(self._stream)

    async def admit(self, episodes: int) -> None:
        self._admitted += episodes
        await self._sup.notify()

    async def stop_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            return
        self._given_out = max(self._given_out, stream.next_seed)
        stream.stopped = True
        await self._sup.notify()
        await self._sup.wait_for(
            lambda: not stream.in_flight or stream.failure,
            self._config.request_timeout_s,
            "episodes in flight did not finish",
        )

    async def report(self, at_least: int, timeout_s: float) -> CollectReport:
        if self._stream is None:
            raise ActorError("no rollouts are running; call start first")
        stream = self._stream
        await self._dispatcher.wait(stream, at_least, timeout_s)
        return stream.report()

    async def recover(self) -> Recovery:
        self._sup.replace(self._updating, "a learner died in the middle of its update")
        self._updating.clear()
        jobs = [*self._collects.values(), *([self._stream] if self._stream is not None else [])]
        if self._stream is not None:
            self._given_out = max(self._given_out, self._stream.next_seed)
        self._collects, self._stream = {}, None
        for job in jobs:
            job.failure = ActorError("the learner that asked for these episodes has ended")
        await self._sup.notify()
        await self._sup.wait_for(
            lambda: not any(job.in_flight for job in jobs),
            self._config.request_timeout_s,
            "episodes in flight did not finish",
        )
        played = self._dispatcher
        return Recovery(self._sent, self._given_out, played.stored_episodes, played.stored_turns)

    async def request(self, request: ActionRequest) -> FreshActions:
        return await self._requests.answer(request)

    # Weights

    async def engines(self, timeout_s: float) -> dict[str, str]:
        """Wait for an engine that can take weights; return the node of each that can, by its incarnation."""
        await self._sup.wait_for(self._sup.alive, timeout_s, "no engine started to take weights")
        return {worker.incarnation: worker.node for worker in self._sup.alive()}

    async def update_engines(
        self, incarnations: list[str], method: str, arguments: list[Any], timeout_s: float
    ) -> dict[str, str]:
        """Call `method` on the engines of `incarnations`, with one argument for each if there are `arguments`.

        Return the incarnations that died or did not answer in time, with the reasons. Raises WeightTransferError.
        """
        if method in ("start_weight_update", "install_weights"):
            self._updating.update(incarnations)
        if method == "install_weights":
            self._sent = max(self._sent, *(version for _, version in arguments))
        elif method == "finish_weight_update":
            self._sent = max(self._sent, *arguments)
        calls = {name: [method, *arguments[i : i + 1]] for i, name in enumerate(incarnations)}
        lost = await self._call_engines(calls, "update_engine", method, timeout_s)
        if method in ("finish_weight_update", "install_weights"):
            self._updating.difference_update(incarnations)
        return lost

    async def fetch_weights(self, incarnations: list[str], offer: Offer, timeout_s: float) -> dict[str, str]:
        """Let the workers of `incarnations` copy the learner's weights. Return those that could not, with reasons."""
        calls = {name: [offer, timeout_s] for name in incarnations}
        # The worker's own error says more than that it did not answer.
        return await self._call_engines(calls, "fetch_weights", "fetch_weights", timeout_s + GRACE_S)

    async def _call_engines(
        self, calls: dict[str, list[Any]], call: str, during: str, timeout_s: float
    ) -> dict[str, str]:
        """Make a call on each engine with its arguments. Return the incarnations that were lost, with the reasons."""
        alive = {worker.incarnation: worker for worker in self._sup.alive()}
        lost = {name: f"it died before {during}" for name in calls if name not in alive}
        left = [name for name in calls if name in alive]
        outcomes = await self._sup.call_each([(alive[name], calls[name]) for name in left], call, timeout_s)
        for name, outcome in zip(left, outcomes, strict=True):
            if isinstance(outcome, WorkerGone):
                lost[name] = f"{outcome} during {during}"
            elif outcome is not None:
                lost[name] = outcome
        return lost

    async def weights_arrived(self, incarnations: list[str], version: int) -> None:
        await self._sup.weights_arrived(incarnations, version)

    async def probe(self, tokens: np.ndarray, positions: np.ndarray) -> list[ProbeAnswer]:
        """Return the answers of the ready workers that survive the call. Raises StaleWorkersError if none does."""
        outcomes = await self._sup.call_each([(worker, [tokens, positions]) for worker in self._sup.ready()], "probe")
        answers = [outcome for outcome in outcomes if not isinstance(outcome, WorkerGone)]
        if not answers:
            raise self._sup.stale_error()
        return answers

    # The pool itself

    async def resize(self, workers: int) -> None:
        await self._sup.resize(workers)

    async def size(self) -> tuple[int, int]:
        return len(self._sup.workers), sum(worker.placed for worker in self._sup.workers)

    async def workers(self) -> list[WorkerStatus]:
        return [WorkerStatus(w.name, w.version, w.state == "ready", w.restarts) for w in self._sup.workers]

    async def processes(self) -> list[Process]:
        alive = self._sup.alive()
        workers = [Process("rollout", w.name, w.metrics if w in alive else "", w.restarts) for w in self._sup.workers]
        return [Process("pool", "pool", self._address), *workers]

    async def window(self) -> int:
        return min(w.window for w in self._sup.alive())

    async def shutdown(self) -> None:
        if self._stream is not None:
            self._stream.stopped = True
        await self._sup.shutdown()


def start_pool(args: WorkerArgs, *, wait: bool = True) -> PoolClient:
    """Start the pool and its workers on the connected Ray cluster. Raises ActorError.

    With `wait=False` the call returns before the workers have started; `PoolClient.ready` waits for them. The pool ends
    with the driver, or by `PoolClient.shutdown`.
    """
    pool = ray.remote(RolloutPool).options(num_cpus=0, max_concurrency=10_000, scheduling_strategy=this_node())
    client = PoolClient(pool.remote(args), args.config)
    try:
        client.resize(args.config.least_workers)
        if wait:
            client.ready(args.config.engine.startup_timeout_s)
    except ActorError:
        client.shutdown()
        raise
    return client
