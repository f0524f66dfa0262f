"""Workers, kept alive: starting, watching, restarting, and how many there are.

A worker is in one of these states:

    starting -> ready | stale        it has come up; stale where its weights are not the current ones
    stale -> ready                   a broadcast reached it
    ready | stale -> dead            its process or its engine's ended, or it hung; it is started again
    any -> retired                   the pool has shrunk; it takes no more work and ends when it is done
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError

from actors.errors import ActorError, EngineDied, RolloutTimeout, WorkersLostError
from actors.rollout.worker import RolloutWorker, WorkerArgs, WorkerInfo
from buffer.rollout_records import WorkerStatus

State = Literal["starting", "ready", "stale", "dead", "retired"]

WORKER_ENDED = (RayActorError, EngineDied)
"""What a call to a worker raises whose process, or engine, has ended."""


@dataclass
class Worker:
    """One place in the pool, held by one actor after another."""

    name: str
    index: int
    state: State = "starting"
    version: int = 0
    restarts: int = 0
    playing: int = 0
    """Episodes in flight."""
    acting: int = 0
    """Requests for actions in flight."""
    handle: ActorHandle | None = None
    info: WorkerInfo | None = None
    task: asyncio.Task[None] | None = None

    @property
    def incarnation(self) -> str:
        """Names this actor, not the place."""
        return f"{self.name}.{self.restarts}"


class Supervisor:
    """Keeps the workers and tells about each change through `changed`."""

    def __init__(self, args: WorkerArgs) -> None:
        self.args = args
        self.version = args.version
        self.changed = asyncio.Condition()
        self.workers: list[Worker] = []
        self.fatal: ActorError | None = None
        """Why the pool can't go on, once it can't."""
        self._made = 0
        self._restarts = 0

    # Looking

    def ready(self) -> list[Worker]:
        return [w for w in self.workers if w.state == "ready"]

    def alive(self) -> list[Worker]:
        """Workers that can take weights."""
        return [w for w in self.workers if w.state in ("ready", "stale")]

    def stranded(self) -> bool:
        """No worker holds the current weights, and none will without another broadcast."""
        if self.ready():
            return False
        starts_current = self.version == self.args.version
        return not (starts_current and any(w.state in ("starting", "dead") for w in self.workers))

    def status(self) -> list[WorkerStatus]:
        return [WorkerStatus(w.name, w.version, w.state == "ready", w.restarts) for w in self.workers]

    def describe(self) -> str:
        """All workers in a few words, for errors."""
        return ", ".join(f"{w.name} ({w.state}, version {w.version})" for w in self.workers) or "no worker at all"

    async def wait_for(self, ready: Callable[[], Any], timeout_s: float | None, what: str) -> None:
        """Wait until `ready()` is true; raises what made the pool fail, or RolloutTimeout."""
        async with self.changed:
            try:
                await asyncio.wait_for(self.changed.wait_for(lambda: self.fatal or ready()), timeout_s)
            except TimeoutError:
                raise RolloutTimeout(
                    f"{what} within {timeout_s:g} s; workers: {self.describe()}. See the workers' logs in the Ray "
                    "session folder, or raise the timeout"
                ) from None
        if self.fatal is not None and not ready():
            raise self.fatal

    async def notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    # Changing

    async def resize(self, workers: int) -> None:
        """Start workers, or retire those that came last; a retired one finishes what it plays."""
        while len(self.workers) < workers:
            worker = Worker(f"worker-{self._made}", self._made)
            self._made += 1
            self.workers.append(worker)
            worker.task = asyncio.create_task(self._supervise(worker))
            worker.task.add_done_callback(self._unsupervised)
        retired = self.workers[workers:]
        del self.workers[workers:]
        for worker in retired:
            worker.state = "retired"
        await self.notify()
        await asyncio.gather(*(self._retire(worker) for worker in retired))

    async def fail(self, worker: Worker, incarnation: str) -> None:
        """Give up this incarnation of `worker`; it is started again."""
        if worker.incarnation != incarnation or worker.state not in ("ready", "stale"):
            return
        worker.state = "dead"
        await self.notify()
        _kill(worker)

    async def weights_arrived(self, incarnations: list[str], version: int) -> None:
        """These now hold policy `version`, which is the current one; others are stale."""
        self.version = version
        for worker in self.workers:
            if worker.state in ("ready", "stale"):
                if worker.incarnation in incarnations:
                    worker.version = version
                worker.state = "ready" if worker.version == version else "stale"
        await self.notify()

    async def shutdown(self) -> None:
        """End all workers and their engines."""
        workers, self.workers = self.workers, []
        self.fatal = self.fatal or ActorError("the pool of rollout workers was shut down")
        for worker in workers:
            worker.state = "retired"
        await self.notify()
        for worker in workers:
            if worker.task is not None:
                worker.task.cancel()
            _kill(worker)

    async def _supervise(self, worker: Worker) -> None:
        """The life of one place: start an actor, watch it, and start another when it ends."""
        while worker.state != "retired":
            try:
                await self._bring_up(worker)
                assert worker.handle is not None
                await worker.handle.watch.remote()
            except RayActorError:
                # Its process ended; watch and start raise this too.
                pass
            except ActorError as error:
                await self._give_up(error)
                return
            if worker.state == "retired":
                return
            worker.state = "dead"
            await self.notify()
            _kill(worker)
            worker.restarts += 1
            self._restarts += 1
            if self._restarts > self.args.config.restart_limit:
                await self._give_up(
                    WorkersLostError(
                        f"rollout workers died {self._restarts} times, {worker.name} last; look for the reason in "
                        "their logs in the Ray session folder (often memory), or raise rollout.restart_limit"
                    )
                )
                return

    def _unsupervised(self, task: asyncio.Task[None]) -> None:
        """A worker that nobody restarts would make everyone wait for ever."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fatal = WorkersLostError(f"the supervision of a rollout worker failed: {error!r}")
            self._notified = asyncio.ensure_future(self.notify())

    async def _bring_up(self, worker: Worker) -> None:
        config = self.args.config
        worker.state = "starting"
        actor = ray.remote(RolloutWorker).options(
            num_cpus=config.cpus_per_worker, num_gpus=config.gpus_per_worker, max_concurrency=10_000
        )
        seed = (self.args.seed * 1_000_003 + worker.index * 1009 + worker.restarts) % (1 << 31)
        worker.handle = actor.remote(self.args, worker.name, seed)
        timeout_s = config.engine.startup_timeout_s
        try:
            worker.info = await asyncio.wait_for(worker.handle.start.remote(), timeout_s)
        except TimeoutError:
            _kill(worker)
            raise WorkersLostError(
                f"{worker.name} did not come up within {timeout_s:g} s. Does the cluster have "
                f"{config.cpus_per_worker:g} CPUs and {config.gpus_per_worker:g} GPUs free for it (`ray status`)? "
                "Otherwise raise rollout.engine.startup_timeout_s"
            ) from None
        except RayTaskError as error:
            raise WorkersLostError(f"{worker.name} can't start: {_cause(error)}") from error
        if worker.state == "retired":
            return
        worker.version = self.args.version
        worker.state = "ready" if worker.version == self.version else "stale"
        await self.notify()

    async def _retire(self, worker: Worker) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: worker.playing == worker.acting == 0)
        if worker.task is not None:
            worker.task.cancel()
        _kill(worker)

    async def _give_up(self, error: ActorError) -> None:
        self.fatal = error
        await self.notify()


def _kill(worker: Worker) -> None:
    """End the actor's process; its engine's processes follow it (`actors.lifeline`)."""
    if worker.handle is not None:
        ray.kill(worker.handle)


def _cause(error: RayTaskError) -> BaseException:
    return error.cause if isinstance(error.cause, BaseException) else error
