"""Episodes, workers and jobs on a scripted engine: stored tokens, the context window, failing environments."""

import asyncio
from datetime import datetime

import numpy as np
import pytest
from actor_cases import Fragile, ScriptedEngine, byte_tokenizer, save_model
from prometheus_client import CollectorRegistry

import actors.rollout.worker
from actors.config import RolloutConfig, SamplingConfig
from actors.errors import EnvFailureLimit, PromptTooLong
from actors.pool.jobs import Job
from actors.rendering.context import EpisodeContext
from actors.rendering.plain import PlainRenderer
from actors.rollout.episode import run_episode
from actors.rollout.player import WorkerArgs
from actors.rollout.results import EpisodeResult
from actors.rollout.worker import RolloutWorker
from buffer.episodes.schema import episodes_to_batch
from buffer.episodes.validation import validate
from buffer.rollout_records import FreshActions
from envs import AsyncEnv, TimeLimit, make
from envs.hosting.child_process import HUNG

SAMPLING = SamplingConfig(max_tokens=8)
NOW = EpisodeContext(datetime(2026, 11, 27))


def _episode(engine, **kwargs):
    env = AsyncEnv(TimeLimit(Fragile(from_seed=100)))
    call = run_episode(env, engine, PlainRenderer(byte_tokenizer()), SAMPLING, NOW, seed=7, episode_id="e", **kwargs)
    return asyncio.run(call)


def test_an_episode_holds_what_the_engine_read_and_wrote():
    engine = ScriptedEngine(["hello\n", "bad\n", "much too long\n"])
    played = _episode(engine, worker="w")
    episode = played.episode
    validate(episodes_to_batch([episode]))
    tokenizer = byte_tokenizer()
    assert tokenizer.decode(episode.tokens) == (
        "Say something.\nhello\nYou said hello.\nbad\nYou said bad.\nmuch too\nYou said much too.\n"
    )
    for turn, prompt in enumerate(engine.prompts):
        assert episode.tokens[: episode.state_end(turn)].tolist() == prompt
    texts = [
        tokenizer.decode(episode.tokens[a:b]) for a, b in zip(episode.action_start, episode.action_end, strict=True)
    ]
    assert texts == ["hello\n", "bad\n", "much too"]
    assert (episode.task_id, episode.seed, episode.worker, episode.env) == ("task-7", 7, "w", "fragile")
    assert (episode.terminated, episode.truncated, episode.success) == (False, True, False)
    assert set(episode.versions) == {3}
    assert played.invalid_actions == 1
    assert not played.window_truncated
    assert [m["role"] for m in episode.messages] == ["user", "assistant"] * 3 + ["user"]


def test_an_episode_that_outgrows_the_window_is_truncated_and_fits_it():
    # "Say something.\n" 15, "hello\n" 6, "You said hello.\n" 16: the third action would end beyond 60.
    engine = ScriptedEngine(["hello\n"], window=60)
    played = _episode(engine)
    assert played.window_truncated
    assert played.episode.truncated
    assert not played.episode.terminated
    assert played.episode.turns == 2
    assert len(played.episode.tokens) == 59
    short = _episode(ScriptedEngine(["hello\n"], window=30))
    assert short.episode.turns == 1
    assert len(short.episode.tokens) == 30
    validate(episodes_to_batch([short.episode]))


def test_a_hang_ends_the_episode_as_truncated_and_the_next_one_plays():
    async def play():
        env = AsyncEnv(make("actor_cases:Hanging"), timeout_s=3.0)
        played = []
        for seed, says in enumerate((["hello\n", "hang\n"], ["hello\n"])):
            renderer, engine = PlainRenderer(byte_tokenizer()), ScriptedEngine(says)
            played.append(await run_episode(env, engine, renderer, SAMPLING, NOW, seed=seed, episode_id=f"e{seed}"))
        await env.aclose()
        return [one.episode for one in played]

    hung, after = asyncio.run(play())
    validate(episodes_to_batch([hung, after]))
    assert (hung.turns, hung.terminated, hung.truncated, hung.success) == (2, False, True, None)
    assert hung.reward.tolist() == [-1.0, 0.0]
    assert hung.messages[-1]["content"] == HUNG
    assert (after.turns, after.truncated) == (9, True)


def test_a_first_observation_longer_than_the_window_says_so_with_numbers():
    with pytest.raises(PromptTooLong, match=r"15 tokens.*up to 8 tokens.*context window of 20"):
        _episode(ScriptedEngine(["hello\n"], window=20))


@pytest.fixture
def worker(monkeypatch, tmp_path):
    """A factory of workers on a scripted engine, and the ids of the stored episodes."""
    stored = []

    class Replay:
        def append(self, batch):
            stored.extend(batch.column("episode_id").to_pylist())
            return batch.num_rows

    async def start(*_args, **_kwargs):
        return ScriptedEngine(["hello\n"])

    monkeypatch.setattr(actors.rollout.worker.VllmEngine, "start", start)
    # The default registry accepts each metric once per process.
    metrics = actors.rollout.worker.WorkerMetrics
    monkeypatch.setattr(actors.rollout.worker, "WorkerMetrics", lambda busy: metrics(busy, CollectorRegistry()))
    folder = save_model(tmp_path)

    async def make(**kwargs):
        config = RolloutConfig(sampling=SAMPLING, env_failure_limit=3)
        args = WorkerArgs(config, str(folder), f"{Fragile.__module__}:Fragile", kwargs, Replay(), run="r")  # type: ignore[arg-type]
        made = RolloutWorker(args, "worker-0", 0)
        await made.start()
        return made

    return make, stored


def test_a_worker_drops_failed_episodes_and_goes_on(worker):
    make, stored = worker

    async def play():
        made = await make(from_seed=10)
        return [await made.play(seed, False, True) for seed in (10, 11, 1, 12, 13, 2)]

    results = asyncio.run(play())
    assert [r.failure is None for r in results] == [False, False, True, False, False, True]
    assert "KeyError" in results[0].failure
    assert "lost my state at 'hello'" in results[0].failure
    assert stored == ["r-sampled-1", "r-sampled-2"]


def test_episodes_of_a_group_share_the_environments_seed_and_no_id(worker):
    make, stored = worker

    async def play():
        made = await make(from_seed=10)
        return [await made.play(seed, False, True, 4) for seed in (4, 7, 43)]

    results = asyncio.run(play())
    assert [r.failure is None for r in results] == [True, True, False]  # 43 // 4 is the first seed that fails
    assert [r.seed for r in results] == [4, 7, 43]
    assert stored == ["r-sampled-4", "r-sampled-7"]


@pytest.mark.parametrize("in_reset", [False, True])
def test_failures_in_a_row_stop_the_run_with_the_environments_own_error(worker, in_reset):
    make, stored = worker

    async def play():
        made = await make(from_seed=10, in_reset=in_reset)
        for seed in range(10, 13):
            await made.play(seed, False, True)

    with pytest.raises(EnvFailureLimit, match="no task for seed 12" if in_reset else "lost my state"):
        asyncio.run(play())
    assert stored == []


def test_greedy_evaluation_is_not_stored(worker):
    make, stored = worker

    async def play():
        return await (await make(from_seed=10)).play(1, True, False)

    assert asyncio.run(play()).turns == 3
    assert stored == []


def _done(seed):
    return EpisodeResult(seed=seed, ret=-1.0, turns=1)


def test_a_batch_plays_each_seed_once_and_lost_ones_again():
    job = Job(10, lambda: 13)
    assert [job.take(), job.take()] == [10, 11]
    job.lose(10)
    job.finish(_done(11))
    assert job.take() == 10
    assert job.take() == 12
    assert not job.admits()
    job.finish(EpisodeResult(seed=10, failure="broke"))
    assert job.finished == 2
    job.finish(_done(12))
    assert job.finished == 3
    report = job.report()
    assert (len(report.returns), report.env_failures, report.lost, report.next_seed) == (2, 1, 1, 13)
    assert report.failures == ["broke"]


def test_a_job_starts_no_more_than_its_end_admits():
    end = 108
    job = Job(100, lambda: end)
    taken = []
    while job.admits():
        taken.append(job.take())
    assert taken == list(range(100, 108))
    end = 112
    assert [job.take() for _ in range(4)] == [108, 109, 110, 111]
    assert not job.admits()
    for seed in taken[1:]:
        job.finish(_done(seed))
    # A resumed run continues at the lowest seed that is not finished.
    assert job.report().next_seed == 100
    job.stopped = True
    end = 116
    assert not job.admits()


def test_parts_of_a_request_join_in_order():
    def part(values, lengths):
        tokens = np.array(values, np.int32)
        return FreshActions(
            tokens, np.cumsum([0, *lengths]), -tokens.astype(np.float32), tokens * 0, np.array([len(lengths)])
        )

    joined = FreshActions.join([part([1, 2, 3], [1, 2]), part([4, 5, 6, 7], [3, 1])])
    assert joined.tokens.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert joined.offsets.tolist() == [0, 1, 3, 6, 7]
    assert joined.counts.tolist() == [2, 2]
