"""The pool on a real cluster: real engines, a real replay, and workers killed by SIGKILL."""

import os
import signal
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from actor_cases import change, load_model, reference_logprobs, save_model

from actors.config import EngineConfig, RolloutConfig, SamplingConfig
from actors.errors import ActorError, StaleWorkersError, WorkersLostError
from actors.pool.pool import start_pool
from actors.rollout.player import WorkerArgs
from buffer.config import ReplayConfig
from buffer.sampling.request import SampleRequest
from buffer.service import ReplayService
from learner.broadcast.broadcaster import Broadcaster
from learner.broadcast.policy_source import PolicySource
from learner.broadcast.proof import probe_positions

pytestmark = [pytest.mark.engine, pytest.mark.slow]

SAMPLING = SamplingConfig(temperature=0.8, max_tokens=4)
ENV = "twenty_questions_subset"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("llama"), tied=True)


@pytest.fixture(scope="module")
def replay(ray_cluster, tmp_path_factory):
    directory = tmp_path_factory.mktemp("replay")
    service = ReplayService.start(ReplayConfig(shards=1), directory=directory, seed=0)
    yield service.client(seed=0)
    service.stop()


@pytest.fixture(scope="module")
def pool(folder, replay):
    config = RolloutConfig(
        workers=2,
        episodes_at_once=8,
        sampling=SAMPLING,
        engine=EngineConfig(kv_cache_gib=0.1),
        cpus_per_worker=0.5,
    )
    client = start_pool(WorkerArgs(config, str(folder), ENV, {"max_turns": 3}, replay, run="test", seed=1))
    yield client
    client.shutdown()


def _held(replay, **kwargs):
    """Return the episodes in replay by id."""
    sample = replay.sample(SampleRequest(2000, unit="episode", **kwargs))
    return {episode.episode_id: episode for episode in sample.episodes}


def _until(condition, what, timeout_s=120):
    """Wait until `condition()` is true and return its value."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} within {timeout_s} s"
        time.sleep(0.05)
    return found


def _engine_process(name, actor_pid):
    def children():
        found = {}
        for process in psutil.Process(actor_pid).children():
            try:
                found[" ".join(process.cmdline())] = process
            except psutil.NoSuchProcess:  # a short-lived child of vLLM
                continue
        return found

    def engine():
        # An engine that is ready has not always given itself its title; it is the one child that Python spawned.
        titles = ("EngineCore", "multiprocessing.spawn")
        return next((process for title, process in children().items() if any(t in title for t in titles)), None)

    try:
        return _until(engine, f"no engine process below {name} (pid {actor_pid})")
    except AssertionError as error:
        error.add_note(f"{psutil.Process(actor_pid).cmdline()} has the children {list(children())}")
        raise


def _pids(pool):
    """Return the process id of each worker: the process of a worker that serves its metrics."""
    ports = {int(address.rpartition(":")[2]): name for role, name, address, _ in pool.processes() if role == "rollout"}
    listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port in ports]
    # Another cluster on the machine may listen on the same port of another address.
    workers = [c for c in listening if "RolloutWorker" in " ".join(psutil.Process(c.pid).cmdline())]
    return {ports[c.laddr.port]: c.pid for c in workers}


def test_collect_plays_each_seed_once_and_stores_it(pool, replay):
    before = replay.stats().inserted_episodes
    report = pool.collect(20, first_seed=100, timeout_s=200, keep_every=8)
    assert (len(report.returns), report.next_seed, report.lost, report.env_failures) == (20, 120, 0, 0)
    assert set(report.turns) == {3}
    assert replay.stats().inserted_episodes == before + 20
    held = _held(replay)
    assert {f"test-sampled-{seed}" for seed in range(100, 120)} <= set(held)
    assert {episode.worker for episode in held.values()} == {"worker-0", "worker-1"}
    assert [played.episode.seed for played in report.kept] == [104, 112]
    for played in report.kept:
        np.testing.assert_array_equal(played.episode.tokens, held[played.episode.episode_id].tokens)
        assert played.episode.messages
        assert len(played.stops) == len(played.env_seconds) == len(played.invalid) == 3
        assert min(played.action_seconds) > 0
    # The same seeds again, as after a crash of the learner: replay stores no episode twice.
    pool.collect(20, first_seed=100, timeout_s=200)
    assert replay.stats().inserted_episodes == before + 20


def test_greedy_evaluation_repeats_itself_and_is_not_stored(pool, replay):
    before = replay.stats().inserted_episodes
    first, second = (pool.collect(4, first_seed=5, greedy=True, store=False, timeout_s=200) for _ in range(2))
    assert first.returns.tolist() == second.returns.tolist()
    assert replay.stats().inserted_episodes == before


def test_fresh_actions_answer_their_states_in_order(pool, folder):
    rng = np.random.default_rng(0)
    prompts = [rng.integers(5, 250, rng.integers(3, 60)).astype(np.int32) for _ in range(31)]
    fresh = pool.request(prompts, 3).result(120)
    assert len(fresh.offsets) == 31 * 3 + 1
    assert len(fresh.tokens) == len(fresh.logprobs) == len(fresh.versions) == fresh.offsets[-1]
    model = load_model(folder)
    for i, prompt in enumerate(prompts):
        for k in range(3):
            a, b = fresh.offsets[3 * i + k], fresh.offsets[3 * i + k + 1]
            assert 1 <= b - a <= SAMPLING.max_tokens
            whole = np.concatenate([prompt, fresh.tokens[a:b]])
            expected = reference_logprobs(model, whole, SAMPLING.temperature)[len(prompt) - 1 :]
            np.testing.assert_allclose(fresh.logprobs[a:b], expected, atol=1e-3)
    with pytest.raises(ActorError, match="no states"):
        pool.request([], 1)
    with pytest.raises(ActorError, match="0 actions"):
        pool.request(prompts[:2], np.array([1, 0]))


def test_each_state_gets_its_own_number_and_logprobs_can_be_spared(pool):
    prompts = [np.array([70 + i, 80], np.int32) for i in range(5)]
    counts = np.array([1, 4, 2, 1, 3])
    fresh = pool.request(prompts, counts, logprobs=False).result(120)
    assert fresh.counts.tolist() == counts.tolist()
    assert len(fresh.offsets) == counts.sum() + 1
    assert len(fresh.tokens) == len(fresh.versions) == fresh.offsets[-1]
    assert len(fresh.logprobs) == 0


def test_requests_that_nobody_waits_for_are_given_up(pool):
    prompts = [np.array([70, 80 + i], np.int32) for i in range(64)]
    many = [pool.request(prompts, 64) for _ in range(40)]  # more than the gate admits at once
    assert all(future.cancel() for future in many[1:])
    assert len(pool.request(prompts, 1).result(120).offsets) == 65
    assert len(many[0].result(120).offsets) == 64 * 64 + 1


def test_each_worker_serves_its_own_and_vllms_metrics(pool):
    of_pool, *workers = pool.processes()
    assert [(process.role, process.name) for process in workers] == [("rollout", "worker-0"), ("rollout", "worker-1")]
    for process in workers:
        text = urllib.request.urlopen(f"http://{process.address}/metrics", timeout=10).read().decode()
        assert "archer_rollout_episodes_total" in text
        assert "vllm:generation_tokens_total" in text
        assert "_created" not in text
    text = urllib.request.urlopen(f"http://{of_pool.address}/metrics", timeout=10).read().decode()
    assert 'archer_pool_workers{state="ready"} 2.0' in text


def test_workers_and_engines_killed_in_a_collect_cost_no_episode(pool, replay):
    pool.ready(200)
    pids = _pids(pool)
    engines = {name: _engine_process(name, pid) for name, pid in pids.items()}
    before = replay.stats().inserted_episodes

    def kill():
        _until(lambda: replay.stats().inserted_episodes > before, "no episode of the collect came into replay")
        os.kill(pids["worker-0"], signal.SIGKILL)
        engines["worker-1"].send_signal(signal.SIGKILL)

    with ThreadPoolExecutor(1) as threads:
        killed = threads.submit(kill)
        report = pool.collect(600, first_seed=1000, timeout_s=280)
        killed.result()
    assert len(report.returns) == 600
    assert report.lost > 0
    assert replay.stats().inserted_episodes == before + 600
    assert sum(status.restarts for status in pool.workers()) == 2
    # No engine outlives its worker.
    psutil.wait_procs(engines.values(), timeout=30)
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in engines.values())


def _broadcaster(pool, model, seed):
    probe = np.random.default_rng(seed).integers(0, 272, 40).astype(np.int32)

    def logprobs(tokens):
        return reference_logprobs(model, tokens, SAMPLING.temperature)

    positions = probe_positions(len(probe), parameters=10**9)
    return Broadcaster(PolicySource(model), pool, "auto", 0, 60.0, logprobs, probe, positions, 1e-3)


def test_restarted_workers_are_stale_until_a_broadcast_reaches_them(pool, folder, replay):
    pool.ready(200)
    model = load_model(folder)
    change(model, 1)
    broadcaster = _broadcaster(pool, model, 1)
    broadcaster.broadcast(1)
    assert [status.version for status in pool.workers()] == [1, 1]
    for pid in _pids(pool).values():
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(StaleWorkersError, match="version 1"):
        pool.collect(8, first_seed=3000, timeout_s=200)
    with pytest.raises(StaleWorkersError):
        pool.request([np.array([70, 80], np.int32)], 1).result(60)
    # A worker that is still starting misses this broadcast and receives the next.
    broadcaster.broadcast(1)
    assert len(pool.collect(8, first_seed=3000, timeout_s=200).returns) == 8
    pool.ready(200)
    broadcaster.broadcast(2)
    assert [status.version for status in pool.workers()] == [2, 2]
    assert all(set(e.versions) == {1} for e in _held(replay).values() if 3000 <= e.seed < 3008)


def test_a_stream_follows_the_policys_versions(pool, folder):
    model = load_model(folder)
    _broadcaster(pool, model, 2).broadcast(2)  # the version before, whichever tests ran before this one
    pool.start(first_seed=5000, episodes_per_version=10, max_staleness=1)
    report = pool.report(at_least=20, timeout_s=100)
    assert len(report.returns) == 20
    time.sleep(1.0)
    assert len(pool.report(at_least=0, timeout_s=10).returns) == 0
    _broadcaster(pool, model, 2).broadcast(3)
    report = pool.report(at_least=10, timeout_s=100)
    assert (len(report.returns), report.next_seed) == (10, 5030)
    pool.admit(5)  # a cycle that changes no weights
    report = pool.report(at_least=5, timeout_s=100)
    assert (len(report.returns), report.next_seed) == (5, 5035)
    pool.stop()
    with pytest.raises(ActorError, match="call start first"):
        pool.report(at_least=1, timeout_s=10)


def test_the_pool_shrinks_and_grows(pool, folder):
    pool.resize(1)
    assert [status.name for status in pool.workers()] == ["worker-0"]
    assert len(pool.collect(8, first_seed=7000, timeout_s=100).returns) == 8
    pool.resize(2)
    pool.ready(200)
    assert [status.ready for status in pool.workers()] == [True, False]
    _broadcaster(pool, load_model(folder), 3).broadcast(4)
    assert [status.name for status in pool.workers() if status.ready] == ["worker-0", "worker-2"]


def test_a_worker_that_cannot_start_ends_the_pool_with_its_own_error(ray_cluster, folder):
    config = RolloutConfig(engine=EngineConfig(kv_cache_gib=0.1))
    with pytest.raises(WorkersLostError, match=r"worker-0 cannot start: .*wenty_question"):
        start_pool(WorkerArgs(config, str(folder), "twenty_question"))
    missing = str(Path(folder) / "nothing")
    with pytest.raises(WorkersLostError, match="nothing"):
        start_pool(WorkerArgs(config, missing, ENV))
