"""Supervision of workers: start, watch, restart, and the size of the pool.

States of a worker:

    starting -> ready | stale        the worker has started; it is stale if its weights are not the current ones
    stale -> ready                   a broadcast reached the worker
    ready | stale -> dead            the worker's process or engine ended, or the worker hung; it is restarted
    any -> retired                   the pool has shrunk; the worker takes no more work and ends when it has finished
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError, RayTaskError

from actors.errors import ActorError, EngineDied, RolloutTimeout, StaleWorkersError, WorkersLostError
from actors.pool import watched
from actors.pool.client import unwrapped
from actors.rollout.player import WorkerArgs
from actors.rollout.worker import RolloutWorker

logger = logging.getLogger(__name__)

State = Literal["starting", "ready", "stale", "dead", "retired"]


class WorkerGone(Exception):
    """A worker died or hung during a call; the supervisor restarts it. The message is the reason."""


@dataclass
class Worker:
    """A position in the pool, occupied by successive Ray actors.

    playing: episodes in flight; acting: requests for actions in flight; metrics: "host:port" of the Prometheus
    endpoint; window: the engine's context window in tokens; node: Ray's id of its node; placed: whether the cluster has
    given it a process.
    """

    name: str
    index: int
    state: State = "starting"
    version: int = 0
    restarts: int = 0
    playing: int = 0
    acting: int = 0
    handle: ActorHandle | None = None
    metrics: str = ""
    window: int = 0
    node: str = ""
    placed: bool = False
    task: asyncio.Task[None] = field(init=False)

    @property
    def incarnation(self) -> str:
        """Return a name of the present actor, which changes at each restart."""
        return f"{self.name}.{self.restarts}"


class Supervisor:
    """Keeps the workers alive and notifies `changed` of every change of their states.

    version: the current policy version; restarts: of all workers so far; fatal: the error that ended the pool, if any;
    grown, shrunk: workers that `resize` has added to those that the pool began with, and retired.
    """

    def __init__(self, args: WorkerArgs) -> None:
        self.args = args
        self.version = args.version
        self.changed = asyncio.Condition()
        self.workers: list[Worker] = []
        self.fatal: ActorError | None = None
        self._created = 0
        self.restarts = 0
        self.grown = self.shrunk = 0

    # State

    def ready(self) -> list[Worker]:
        """Return the workers that hold the current weights."""
        return [w for w in self.workers if w.state == "ready"]

    def alive(self) -> list[Worker]:
        """Return the workers that can take weights."""
        return [w for w in self.workers if w.state in ("ready", "stale")]

    def stranded(self) -> bool:
        """Return whether no worker holds the current weights, nor will without another broadcast."""
        if self.ready():
            return False
        starts_current = self.version == self.args.version
        return not (starts_current and any(w.state in ("starting", "dead") for w in self.workers))

    def stale_error(self) -> StaleWorkersError:
        """Return the error for a stranded pool."""
        return StaleWorkersError(
            f"no worker holds policy version {self.version}: {self._describe()}. Broadcast the weights again"
        )

    async def wait_for(self, condition: Callable[[], Any], timeout_s: float | None, failure: str) -> None:
        """Wait until `condition()` is true.

        Raises `fatal` if the pool has ended, or RolloutTimeout whose message begins with `failure`.
        """
        async with self.changed:
            try:
                await asyncio.wait_for(self.changed.wait_for(lambda: self.fatal or condition()), timeout_s)
            except TimeoutError:
                raise RolloutTimeout(
                    f"{failure} within {timeout_s:g} s; workers: {self._describe()}. See the workers' logs in the Ray "
                    "session folder, or raise the timeout"
                ) from None
        if self.fatal is not None and not condition():
            raise self.fatal

    async def notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    def announce(self) -> None:
        """Notify from code that cannot wait."""
        watched.start(self.notify(), self._unheard)

    def _unheard(self, error: BaseException) -> None:
        logger.error("those who wait for the pool could not be woken: %r", error)

    def _describe(self) -> str:
        return ", ".join(f"{w.name} ({w.state}, version {w.version})" for w in self.workers) or "no worker at all"

    # Work

    async def call(self, worker: Worker, method: str, *args: Any, timeout_s: float | None = None) -> Any:
        """Call a method of a worker and return the result.

        Raises WorkerGone if the worker died or hung, and is then restarted; otherwise the error that the method raised.
        """
        incarnation = worker.incarnation
        answer = getattr(worker.handle, method).remote(*args)
        timeout_s = timeout_s or self.args.config.request_timeout_s
        try:
            return await asyncio.wait_for(answer, timeout_s)
        except (RayError, TimeoutError) as error:
            # Ray raises a RayTaskError for what the method raised, and others if the answer is lost: with the process,
            # its node, or the object that held the answer.
            cause = unwrapped(error)
            if isinstance(error, RayTaskError) and not isinstance(cause, (RayActorError, EngineDied, TimeoutError)):
                raise cause from None
            hung = isinstance(cause, TimeoutError)
        if worker.incarnation == incarnation and worker.state in ("ready", "stale"):
            worker.state = "dead"
            await self.notify()
            _kill(worker)
        raise WorkerGone(f"it did not answer within {timeout_s:g} s" if hung else "its process ended")

    async def call_each(
        self, calls: Iterable[tuple[Worker, list[Any]]], method: str, timeout_s: float | None = None
    ) -> list[Any]:
        """Call a method of several workers, each with its arguments, and return the results after all calls ended.

        The result of a worker that died or hung is its WorkerGone; other errors are raised.
        """
        made = (self.call(worker, method, *arguments, timeout_s=timeout_s) for worker, arguments in calls)
        outcomes = await asyncio.gather(*made, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, WorkerGone):
                raise outcome
        return outcomes

    async def weights_arrived(self, incarnations: list[str], version: int) -> None:
        """Make `version` the current policy version, which `incarnations` hold; the other workers become stale."""
        self.version = version
        for worker in self.alive():
            if worker.incarnation in incarnations:
                worker.version = version
            worker.state = "ready" if worker.version == version else "stale"
        await self.notify()

    def replace(self, incarnations: Collection[str], reason: str) -> None:
        """End the actors of `incarnations`, whose weights are undefined; their supervision starts others."""
        for worker in self.alive():
            if worker.incarnation in incarnations:
                logger.warning("%s is restarted: %s", worker.name, reason)
                worker.state = "dead"
                _kill(worker)

    # The size of the pool

    async def resize(self, workers: int) -> None:
        """Start workers, or retire some: first those without a process, then the newest. A retired worker finishes its
        episodes and requests."""
        self.grown += max(0, workers - len(self.workers)) if self._created else 0
        while len(self.workers) < workers:
            worker = Worker(f"worker-{self._created}", self._created)
            self._created += 1
            self.workers.append(worker)
            worker.task = watched.start(self._supervise(worker), self._supervision_failed)
        kept = {w.index for w in sorted(self.workers, key=lambda w: (not w.placed, w.index))[:workers]}
        retired = [worker for worker in self.workers if worker.index not in kept]
        self.workers = [worker for worker in self.workers if worker.index in kept]
        self.shrunk += len(retired)
        for worker in retired:
            worker.state = "retired"
        await self.notify()
        await asyncio.gather(*(self._retire(worker) for worker in retired))

    async def shutdown(self) -> None:
        """End all workers and their engines."""
        workers, self.workers = self.workers, []
        self.fatal = self.fatal or ActorError("the pool of rollout workers was shut down")
        for worker in workers:
            worker.state = "retired"
        await self.notify()
        for worker in workers:
            _end(worker)

    async def _retire(self, worker: Worker) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: worker.playing == worker.acting == 0)
        _end(worker)

    # Supervision

    async def _supervise(self, worker: Worker) -> None:
        """Start an actor for `worker`, watch it, and start the next when it ends. An error ends the pool."""
        while worker.state != "retired":
            try:
                await self._start(worker)
                assert worker.handle is not None
                reason = await worker.handle.wait_for_death.remote()
            except RayTaskError:
                raise
            except RayError:  # the actor's process, or its node, ended during either call
                reason = "its process ended"
            if worker.state == "retired":
                return
            worker.state, worker.placed = "dead", False
            await self.notify()
            logger.warning("%s is restarted: %s", worker.name, reason)
            _kill(worker)
            worker.restarts += 1
            self.restarts += 1
            if self.restarts > self.args.config.restart_limit:
                raise WorkersLostError(
                    f"rollout workers died {self.restarts} times, {worker.name} last: {reason}. Their logs in the Ray "
                    "session folder contain the cause (often too little memory). If the deaths are expected, raise "
                    "rollout.restart_limit"
                )

    async def _start(self, worker: Worker) -> None:
        config = self.args.config
        worker.state = "starting"
        actor = ray.remote(RolloutWorker).options(
            num_cpus=config.cpus_per_worker,
            num_gpus=config.gpus_per_worker,
            resources=config.resources or None,
            max_concurrency=10_000,
        )
        seed = (self.args.seed * 1_000_003 + worker.index * 1009 + worker.restarts) % (1 << 31)
        worker.handle = actor.remote(self.args, worker.name, seed)
        await self._find_room(worker)
        timeout_s = config.engine.startup_timeout_s
        try:
            worker.metrics, worker.window, worker.node = await asyncio.wait_for(worker.handle.start.remote(), timeout_s)
        except TimeoutError:
            _kill(worker)
            raise WorkersLostError(
                f"{worker.name} did not start within {timeout_s:g} s. Check that the cluster has "
                f"{config.cpus_per_worker:g} CPUs and {config.gpus_per_worker:g} GPUs free for it (`ray status`), or "
                "raise rollout.engine.startup_timeout_s"
            ) from None
        except RayTaskError as error:
            raise WorkersLostError(f"{worker.name} cannot start: {unwrapped(error)}") from error
        worker.placed = True
        if worker.state == "retired":
            return
        worker.version = self.args.version
        worker.state = "ready" if worker.version == self.version else "stale"
        await self.notify()

    async def _find_room(self, worker: Worker) -> None:
        """Wait until the process of a worker runs. Later ones may wait for their node to return, and those that an
        elastic pool adds for room: it retires them if there is none."""
        config, timeout_s = self.args.config, self.args.room_timeout_s
        if (timeout_s is None or worker.restarts) and not config.is_elastic:
            return
        may_wait = config.is_elastic and (worker.restarts > 0 or worker.index >= config.least_workers)
        assert worker.handle is not None
        try:
            await asyncio.wait_for(worker.handle.exists.remote(), None if may_wait else timeout_s)
            worker.placed = True
        except TimeoutError:
            _kill(worker)
            raise WorkersLostError(
                f"the cluster had no room for {worker.name} within {timeout_s:g} s (cluster.start_timeout_s): it needs "
                f"{config.cpus_per_worker:g} CPUs and {config.gpus_per_worker:g} GPUs on one node (`ray status` shows "
                "what is free)"
            ) from None

    def _supervision_failed(self, error: BaseException) -> None:
        """End the pool: nobody would restart the worker, and callers would wait for ever."""
        if not isinstance(error, ActorError):
            error = WorkersLostError(f"the supervision of a rollout worker failed: {error!r}")
        self.fatal = error
        self.announce()


def _end(worker: Worker) -> None:
    """End the supervision of `worker`, its actor, and its engine."""
    worker.task.cancel()
    _kill(worker)


def _kill(worker: Worker) -> None:
    """End the actor's process; its engine's processes then end too (`actors.engine.extension`)."""
    if worker.handle is not None:
        ray.kill(worker.handle)
