"""Contenders of `bench/replay.py` that run in our environment; each says what it hands back."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from bench.replay_workload import (
    ACTION,
    APPENDED,
    DRAWN,
    EPISODE_BYTES,
    LENGTH,
    OBSERVATION,
    PREFETCH,
    TURNS,
    Columns,
    Contender,
    Unit,
)
from buffer.client.ray_client import ReplayClient
from buffer.episodes.schema import Episode, batch_to_episodes, episodes_to_batch
from buffer.episodes.wire import to_lists, to_wire
from buffer.sampling.request import SampleRequest

TIMEOUT_S = 300.0
CREATED = datetime(2026, 1, 1, tzinfo=UTC)


def record_batch(columns: Columns) -> pa.RecordBatch:
    """The episodes as rows of `EPISODE_SCHEMA`."""
    episodes = [
        Episode(
            **{name: column[row] for name, column in columns.items()},
            episode_id=f"episode-{int(columns['tokens'][row, 0]):09d}",
            env="key_door",
            worker="worker-0",
            terminated=True,
            truncated=False,
            created_at=CREATED,
        )
        for row in range(APPENDED)
    ]
    return episodes_to_batch(episodes)


class Ours(Contender):
    """A client of a replay service. Draws are `Episode`s of numpy views; packed rows where not `decoded`."""

    def __init__(self, client: ReplayClient) -> None:
        self._client = client
        self.decoded = True

    def prepare(self, columns: Columns) -> Any:
        """A RecordBatch."""
        return record_batch(columns)

    def append(self, batch: Any) -> None:
        """As durable as the service on return."""
        self._client.append(batch)

    def append_all(self, batches: list[Any]) -> bool:
        """Through the client's own."""
        self._client.append_all(batches)
        return True

    def sample(self, unit: Unit) -> Any:
        """A `Sample`."""
        sample = self._client.sample(SampleRequest(DRAWN[unit], unit=unit))
        if self.decoded:
            _ = sample.episodes
        return sample

    def stream(self, unit: Unit) -> Iterator[Any]:
        """`PREFETCH` calls under way, on two threads."""
        with ThreadPoolExecutor(2) as threads:
            calls = deque(threads.submit(self.sample, unit) for _ in range(PREFETCH[unit]))
            while True:
                ready = calls.popleft()
                calls.append(threads.submit(self.sample, unit))
                yield ready.result()

    def tokens(self, sample: Any) -> Iterable[np.ndarray]:
        """One for each draw."""
        return [episode.tokens for episode in sample.episodes]


class ListActor:
    """A Python list in an actor, with draws from it; what is in it is the caller's choice."""

    def __init__(self, seed: int) -> None:
        self._episodes: list[Any] = []
        self._rng = np.random.default_rng(seed)

    def append(self, episodes: list[Any]) -> None:
        self._episodes.extend(episodes)

    def sample(self, unit: Unit) -> tuple[list[Any], np.ndarray]:
        """Each draw's episode, which travels once however often it was drawn, and its turn."""
        drawn = self._rng.integers(len(self._episodes), size=DRAWN[unit]).tolist()
        return [self._episodes[row] for row in drawn], self._rng.integers(TURNS, size=len(drawn))


class Lists(Contender):
    """A Ray actor with a list of episodes; an episode is a list of dicts of Python lists, one a turn."""

    def __init__(self, seed: int) -> None:
        self._actor = ray.remote(num_cpus=0.01)(ListActor).remote(seed)

    def prepare(self, columns: Columns) -> Any:
        """What a tokenizer and an engine hand out."""
        return [_turns({name: column[row] for name, column in columns.items()}) for row in range(APPENDED)]

    def append(self, batch: Any) -> None:
        """Waits for the actor."""
        ray.get(self._actor.append.remote(batch), timeout=TIMEOUT_S)

    def sample(self, unit: Unit) -> Any:
        """One call of the actor."""
        return ray.get(self._actor.sample.remote(unit), timeout=TIMEOUT_S)

    def stream(self, unit: Unit) -> Iterator[Any]:
        """`PREFETCH` calls under way."""
        calls = deque(self._actor.sample.remote(unit) for _ in range(PREFETCH[unit]))
        while True:
            ready = calls.popleft()
            calls.append(self._actor.sample.remote(unit))
            yield ray.get(ready, timeout=TIMEOUT_S)

    def tokens(self, sample: Any) -> Iterable[np.ndarray]:
        """One for each draw."""
        return [np.array([t for turn in turns for t in turn["observation"] + turn["action"]]) for turns in sample[0]]

    def close(self) -> None:
        """End the actor."""
        ray.kill(self._actor)


class Arrays(Lists):
    """The same actor with a dict of numpy arrays an episode: the best that it can do."""

    def prepare(self, columns: Columns) -> Any:
        """Arrays of their own, so that none takes its whole batch along."""
        return [{name: column[row].copy() for name, column in columns.items()} for row in range(APPENDED)]

    def tokens(self, sample: Any) -> Iterable[np.ndarray]:
        """One for each draw."""
        return [episode["tokens"] for episode in sample[0]]


def _turns(episode: Columns) -> list[dict[str, Any]]:
    tokens, logprobs, versions = (episode[name].tolist() for name in ("tokens", "logprobs", "versions"))
    size = OBSERVATION + ACTION
    return [
        {
            "observation": tokens[turn * size : turn * size + OBSERVATION],
            "action": tokens[turn * size + OBSERVATION : (turn + 1) * size],
            "reward": float(episode["reward"][turn]),
            "logprobs": logprobs[turn * ACTION : (turn + 1) * ACTION],
            "versions": versions[turn * ACTION : (turn + 1) * ACTION],
            "terminated": turn == TURNS - 1,
        }
        for turn in range(TURNS)
    ]


class ArrowTable(Contender):
    """Rows taken from one RecordBatch in this process, number columns as binary; draws are `Episode`s of views."""

    def __init__(self, seed: int) -> None:
        self._batches: list[pa.RecordBatch] = []
        self._whole: pa.RecordBatch | None = None
        self._rng = np.random.default_rng(seed)

    def prepare(self, columns: Columns) -> Any:
        """A RecordBatch."""
        return record_batch(columns)

    def append(self, batch: Any) -> None:
        """One copy; the first sample joins what was appended, as rows are taken quickly from one chunk alone."""
        self._batches.append(to_wire(batch).take(pa.array(np.arange(len(batch)))))

    def sample(self, unit: Unit) -> Any:
        """The distinct episodes, and the draws among them."""
        if self._whole is None:
            self._whole = pa.concat_batches(self._batches)
            self._batches.clear()
        drawn = self._rng.integers(self._whole.num_rows, size=DRAWN[unit])
        distinct, rows = np.unique(drawn, return_inverse=True)
        episodes = batch_to_episodes(to_lists(self._whole.take(pa.array(distinct))))
        return [episodes[row] for row in rows.tolist()]

    def tokens(self, sample: Any) -> Iterable[np.ndarray]:
        """One for each draw."""
        return [episode.tokens for episode in sample]


class Memory(Contender):
    """One copy of as many bytes as a batch has, or as a sample's distinct episodes: the limit, with nothing found."""

    keeps = False

    def __init__(self, turns: int, seed: int) -> None:
        episodes = max(turns // TURNS, max(DRAWN.values()))
        # Written once, so that no copy is the first to touch its memory.
        self._arena = np.ones((episodes, EPISODE_BYTES), np.uint8)
        self._into = np.ones((max(APPENDED, *DRAWN.values()), EPISODE_BYTES), np.uint8)
        self._rng = np.random.default_rng(seed)

    def prepare(self, columns: Columns) -> Any:
        """An array of as many bytes."""
        return np.ones((APPENDED, EPISODE_BYTES), np.uint8)

    def append(self, batch: Any) -> None:
        """Over whatever is there."""
        at = int(self._rng.integers(len(self._arena) - len(batch)))
        self._arena[at : at + len(batch)] = batch

    def sample(self, unit: Unit) -> Any:
        """A run of rows."""
        at = int(self._rng.integers(len(self._arena) - DRAWN[unit] + 1))
        self._into[: DRAWN[unit]] = self._arena[at : at + DRAWN[unit]]
        return range(at, at + DRAWN[unit])

    def tokens(self, sample: Any) -> Iterable[np.ndarray]:
        """Stand-ins that are counted."""
        return [np.full(LENGTH, row) for row in sample]
