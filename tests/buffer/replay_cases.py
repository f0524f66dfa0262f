"""Helpers of the replay's tests, and small episodes whose contents follow from their id."""

import os
import signal
import time

import numpy as np
import pyarrow as pa
import ray

from buffer.episodes.packing import unpack
from buffer.episodes.schema import Episode, episodes_to_batch
from buffer.sampling.request import RowFilter
from buffer.sampling.sample import Stats


def make_episode(index: int, *, turns: int | None = None, version: int = 0, ret: float | None = None) -> Episode:
    """Return episode `e{index}` with 1 to 5 turns; its contents follow from `index`.

    With `ret` the last turn's reward is the whole return.
    """
    turns = 1 + index % 5 if turns is None else turns
    rng = np.random.default_rng(index)
    lengths = rng.integers(1, 4, turns)
    states = rng.integers(1, 6, turns)
    starts = np.cumsum(states) + np.cumsum(lengths) - lengths
    tokens = rng.integers(0, 1000, int(starts[-1] + lengths[-1] + rng.integers(0, 3)))
    actions = int(lengths.sum())
    reward = rng.normal(size=turns) if ret is None else np.append(np.zeros(turns - 1), ret)
    return Episode(
        episode_id=f"e{index}",
        env="twenty_questions",
        task_id=f"word-{index % 7}",
        seed=index,
        worker="w0",
        tokens=tokens.astype(np.int32),
        action_start=starts.astype(np.int32),
        action_end=(starts + lengths).astype(np.int32),
        reward=reward.astype(np.float32),
        logprobs=-rng.random(actions).astype(np.float32),
        versions=np.full(actions, version, np.int32),
        terminated=index % 2 == 0,
        truncated=index % 2 == 1,
        success=(None, True, False)[index % 3],
        privileged=("", "dog", "goal ä")[index % 3],
        messages=[{"role": "user", "content": f"turn {t} of {index}"} for t in range(turns)],
    )


def make_batch(indices, **kwargs) -> pa.RecordBatch:
    """Return a batch of `make_episode`s."""
    return episodes_to_batch([make_episode(index, **kwargs) for index in indices])


def assert_same(got: Episode, want: Episode, *, messages: bool = True) -> None:
    """Compare every field except the time of creation and, if they were not requested, the messages."""
    for name in ("tokens", "action_start", "action_end", "reward", "logprobs", "versions", "state_start"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name), err_msg=name)
        assert getattr(got, name).dtype == getattr(want, name).dtype, name
    for name in ("episode_id", "env", "task_id", "seed", "worker", "terminated", "truncated", "success", "privileged"):
        assert getattr(got, name) == getattr(want, name), name
    assert got.messages == (want.messages if messages else [])


def settled(client) -> Stats:
    """Return the counts, after every client has reported its samples to the limiter."""
    time.sleep(0.3)
    return client.stats()


def inserted(client, episodes: int, timeout_s: float = 60) -> int:
    """Wait until at least `episodes` were ever inserted; return how many were."""
    deadline = time.monotonic() + timeout_s
    while (reached := client.stats().inserted_episodes) < episodes:
        assert time.monotonic() < deadline, f"{reached} of {episodes} episodes were inserted within {timeout_s} s"
        time.sleep(0.02)
    return reached


def inside(actors, function) -> list:
    """Call a function in each actor's process with the actor's object; return the results."""
    return ray.get([actor.__ray_call__.remote(function) for actor in actors], timeout=120)


def held_ids(shard) -> list[str]:
    """Return the ids that a shard holds, oldest first."""
    _, batches = shard.sweep(RowFilter())
    return [episode.episode_id for batch in batches for episode in unpack(batch)]


def ids(service) -> list[list[str]]:
    """Return the ids that each shard of a service holds, oldest first."""

    def held(actor) -> list[str]:
        # Imported here, because the process that runs this function cannot import this module.
        from buffer.episodes.packing import unpack
        from buffer.sampling.request import RowFilter

        _, batches = actor._shard.sweep(RowFilter())
        return [episode.episode_id for batch in batches for episode in unpack(batch)]

    return inside(service.shards, held)


def kill(actor) -> None:
    """Kill the actor's process with SIGKILL."""
    (pid,) = inside([actor], lambda _: os.getpid())
    os.kill(pid, signal.SIGKILL)
