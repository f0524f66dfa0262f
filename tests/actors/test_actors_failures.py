"""The pool without Ray: what dies wakes those who wait for it, and a learner that died leaves a pool to continue on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, ObjectLostError, OwnerDiedError, RaySystemError

from actors.config import RolloutConfig, WorkerRange
from actors.errors import ActorError, EngineDied, PoolUnreachable, WorkersLostError
from actors.pool.client import PoolClient
from actors.pool.pool import RolloutPool
from actors.pool.supervisor import Supervisor, Worker
from actors.rollout.player import WorkerArgs
from actors.rollout.results import EpisodeResult
from actors.rollout.worker import RolloutWorker
from buffer.flight.memory_stream import Offer
from buffer.rollout_records import Recovery

LOST: list[Callable[[], BaseException]] = [
    lambda: ObjectLostError("00" * 28, None, "call site"),
    lambda: OwnerDiedError("00" * 28, None, "call site"),
    lambda: RaySystemError("the connection to the node broke"),
]


async def played(seed: int, *_: Any) -> EpisodeResult:
    return EpisodeResult(seed=seed, ret=1.0, turns=3, version=0.0)


class Handle:
    """The handle of a worker's actor, whose methods answer in this process."""

    def __init__(self, **methods: Callable[..., Awaitable[Any]]) -> None:
        for name, method in methods.items():
            setattr(self, name, SimpleNamespace(remote=method))


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    monkeypatch.setattr("actors.pool.supervisor._kill", lambda worker: names.append(worker.name))
    return names


def pool_of(*handles: Handle) -> RolloutPool:
    """Return a pool whose workers are ready, without the supervision that would start others."""
    pool = RolloutPool(WorkerArgs(RolloutConfig(episodes_at_once=4, request_timeout_s=20.0), "model", "env"))
    for index, handle in enumerate(handles):
        worker = Worker(f"worker-{index}", index, state="ready")
        worker.handle = handle  # type: ignore[assignment]
        pool._sup.workers.append(worker)
    return pool


def test_a_dispatch_that_fails_wakes_who_waits_for_its_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        pool = pool_of(Handle(play=played))
        monkeypatch.setattr(pool._dispatcher, "_free", lambda: 1 // 0)
        await pool.collect(4, 0, 1, True, False, None)

    with pytest.raises(ActorError, match=r"the dispatch of episodes failed: ZeroDivisionError"):
        asyncio.run(asyncio.wait_for(run(), 20))


def test_a_supervision_that_fails_ends_every_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: Supervisor, worker: Worker) -> None:
        raise KeyError("a slip")

    async def run() -> None:
        pool = pool_of()
        monkeypatch.setattr(Supervisor, "_start", broken)
        await pool.resize(1)
        await pool.ready(None)  # type: ignore[arg-type]

    with pytest.raises(WorkersLostError, match=r"the supervision of a rollout worker failed: KeyError\('a slip'\)"):
        asyncio.run(asyncio.wait_for(run(), 20))


@pytest.mark.parametrize("error", LOST)
def test_an_answer_that_ray_loses_costs_no_episode(error: Callable[[], BaseException], killed: list[str]) -> None:
    """Ray has errors beside those of a dead actor: the node, or the object of the answer, may be gone."""

    async def lost(*_: Any) -> EpisodeResult:
        raise error()

    async def run() -> Any:
        return await pool_of(Handle(play=lost), Handle(play=played)).collect(6, 10, 1, True, False, 20.0)

    report = asyncio.run(asyncio.wait_for(run(), 30))
    assert report.seeds.tolist() == list(range(10, 16))
    assert report.lost > 0
    assert killed == ["worker-0"]


def test_a_learner_that_died_leaves_what_another_continues_from(killed: list[str]) -> None:
    """Its stream ends, what it played is counted, an engine in the middle of an update is restarted, and neither a
    version nor a seed is used again."""

    async def done(*_: Any) -> None:
        return None

    async def run() -> tuple[Recovery, Recovery]:
        pool = pool_of(Handle(play=played, update_engine=done), Handle(play=played, update_engine=done))
        both = ["worker-0.0", "worker-1.0"]
        await pool.start_stream(100, 5, 0, 1)
        await pool.report(5, 20.0)
        for method, arguments in (("start_weight_update", []), ("finish_weight_update", [1, 1])):
            await pool.update_engines(both, method, arguments, 20.0)
        await pool.update_engines(both, "install_weights", [([], 1), ([], 1)], 20.0)
        whole = await pool.recover()  # the learner died before the pool learnt of the new version
        assert killed == []
        await pool.update_engines(["worker-1.0"], "start_weight_update", [], 20.0)
        return whole, await pool.recover()

    whole, half = asyncio.run(asyncio.wait_for(run(), 30))
    assert whole == half == Recovery(version=1, next_seed=105, episodes=5, turns=15)
    assert killed == ["worker-1"]


def test_an_engine_that_the_weights_do_not_reach_is_lost_for_this_broadcast_only(killed: list[str]) -> None:
    async def arrived(*_: Any) -> None:
        return None

    async def cut(*_: Any) -> str:
        return "the weights did not arrive from learner rank 0 at 10.0.0.1:4000 within 20 s: no route"

    async def run() -> dict[str, str]:
        pool = pool_of(Handle(fetch_weights=arrived), Handle(fetch_weights=cut))
        offer = Offer("learner rank 0", "10.0.0.1:4000", "token", None, 0, {})
        return await pool.fetch_weights(["worker-0.0", "worker-1.0", "worker-2.0"], offer, 20.0)

    lost = asyncio.run(asyncio.wait_for(run(), 30))
    assert list(lost) == ["worker-2.0", "worker-1.0"]
    assert lost["worker-2.0"] == "it died before fetch_weights"
    assert "10.0.0.1:4000 within 20 s: no route" in lost["worker-1.0"]
    assert killed == []


def test_a_call_of_the_dead_learner_ends_when_another_takes_over(killed: list[str]) -> None:
    async def run() -> tuple[Recovery, Any]:
        held, all_play = asyncio.Event(), asyncio.Barrier(5)

        async def play(seed: int, *_: Any) -> EpisodeResult:
            if not held.is_set():
                await all_play.wait()
            await held.wait()
            return EpisodeResult(seed=seed, turns=2)

        pool = pool_of(Handle(play=play))
        orphan = asyncio.create_task(pool.collect(8, 0, 1, True, False, None))
        await all_play.wait()
        recovering = asyncio.create_task(pool.recover())
        with pytest.raises(ActorError, match="the learner that asked for these episodes has ended"):
            await orphan
        held.set()
        recovery = await recovering
        return recovery, await pool.collect(4, recovery.next_seed, 1, True, False, 20.0)

    recovery, report = asyncio.run(asyncio.wait_for(run(), 30))
    assert recovery == Recovery(version=0, next_seed=8, episodes=4, turns=8)
    assert report.seeds.tolist() == [8, 9, 10, 11]


def test_a_worker_without_room_is_named_with_what_it_needs(killed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    actor = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *_: Handle(exists=never)))
    monkeypatch.setattr("ray.remote", lambda _: actor)

    async def run() -> None:
        config = RolloutConfig(cpus_per_worker=3)
        pool = RolloutPool(WorkerArgs(config, "model", "env", room_timeout_s=0.1))
        await pool.resize(1)
        await pool.ready(30.0)

    message = r"no room for worker-0 within 0.1 s \(cluster.start_timeout_s\): it needs 3 CPUs and 0 GPUs on one node"
    with pytest.raises(WorkersLostError, match=message):
        asyncio.run(asyncio.wait_for(run(), 30))
    assert killed == ["worker-0"]


def test_an_elastic_pool_waits_for_its_least_and_retires_what_has_no_process(
    killed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second worker finds no room, which would end a fixed pool; the third has a process and stays."""
    waiting = asyncio.Event()

    async def never() -> None:
        waiting.set()
        await asyncio.Event().wait()

    async def at_once() -> None:
        return

    async def started() -> tuple[str, int, str]:
        return "127.0.0.1:1", 100, "node"

    async def alive() -> str:
        return await asyncio.Event().wait() and ""

    made = iter(Handle(exists=exists, start=started, wait_for_death=alive) for exists in (at_once, never, at_once))
    actor = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *_: next(made)))
    monkeypatch.setattr("ray.remote", lambda _: actor)

    async def run() -> tuple[tuple[int, int], list[str], int, int]:
        config = RolloutConfig(workers=WorkerRange(min=1, max=3))
        pool = RolloutPool(WorkerArgs(config, "model", "env", room_timeout_s=0.1))
        await pool.resize(1)
        await pool.ready(10.0)
        await pool.resize(3)
        await asyncio.wait_for(waiting.wait(), 10.0)
        await pool.ready(10.0)
        await pool._sup.wait_for(lambda: len(pool._sup.alive()) == 2, 10.0, "the third worker did not start")
        size = await pool.size()
        await pool.resize(2)
        return size, [worker.name for worker in pool._sup.workers], pool._sup.grown, pool._sup.shrunk

    assert asyncio.run(asyncio.wait_for(run(), 30)) == ((3, 2), ["worker-0", "worker-2"], 2, 1)
    assert len(killed) == 1


def test_a_process_that_was_not_started_answers_as_a_dead_engine() -> None:
    """Ray restarts a worker that died, and calls that were on their way reach the new process before its start."""
    unused: Any = None
    worker = RolloutWorker(unused, "worker-3", 0)
    calls = [
        lambda: worker.play(1, False, False),
        lambda: worker.act(unused),
        lambda: worker.probe(unused, unused),
        lambda: worker.update_engine("pause"),
    ]
    for call in calls:
        with pytest.raises(EngineDied, match="worker-3 restarted, and has no engine yet"):
            asyncio.run(call())


@pytest.mark.parametrize(
    ("error", "kind"),
    [(ActorUnavailableError("no answer", None), PoolUnreachable), (ActorDiedError(), WorkersLostError)],
)
def test_a_pool_that_is_cut_off_is_told_apart_from_one_that_has_ended(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception]
) -> None:
    def get(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("actors.pool.client.ray.get", get)
    pool = SimpleNamespace(window=SimpleNamespace(remote=lambda: None))
    client = PoolClient(pool, RolloutConfig())  # type: ignore[arg-type]
    with pytest.raises(kind, match=r"the pool of rollout workers (has ended|broke)"):
        client.window()
