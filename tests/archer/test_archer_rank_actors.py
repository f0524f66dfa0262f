"""The ranks while they run: one that fails ends the wait for all, and one that stops answering is named."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import ray

from archer.driver import rank_actors
from archer.driver.board import BoardFollower, start_board
from archer.driver.rank_actors import SilentRankError, _watch
from archer.errors import RunError


@pytest.fixture
def ranks(ray_cluster: None) -> Iterator[list[Any]]:
    class Rank:
        """A rank that ends as it was asked to. Ray pickles a class of a function by value."""

        def node(self) -> int:
            return os.getpid()

        def run(self, error: str | None, seconds: float) -> None:
            time.sleep(seconds)
            if error is not None:
                raise ValueError(error)

    actors = [ray.remote(Rank).options(num_cpus=0, max_concurrency=2).remote() for _ in range(2)]
    yield actors
    for actor in actors:
        ray.kill(actor)


@pytest.fixture
def follower(ray_cluster: None) -> Iterator[BoardFollower]:
    with BoardFollower(start_board(), lambda event: None) as follower:
        yield follower


def start(ranks: list[Any], *ends: tuple[str | None, float]) -> dict[int, Any]:
    calls = zip(ranks, ends, strict=True)
    return {rank: actor.run.remote(*end).future() for rank, (actor, end) in enumerate(calls)}


def test_ranks_end_in_order_or_with_the_error_of_the_first_that_fails(
    ranks: list[Any], follower: BoardFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _watch(ranks, start(ranks, (None, 0.0), (None, 0.1)), follower, 60.0) == {}
    monkeypatch.setattr(rank_actors, "GRACE_S", 0.2)
    started = time.monotonic()
    [(rank, error)] = _watch(ranks, start(ranks, (None, 600.0), ("odd", 0.0)), follower, 60.0).items()
    assert rank == 1
    assert isinstance(error.cause, ValueError)  # type: ignore[attr-defined]
    assert time.monotonic() - started < 300


def test_a_rank_that_does_not_answer_is_named(
    ranks: list[Any], follower: BoardFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_actors, "ASK_EVERY_S", 0.2)
    stopped = psutil.Process(ray.get(ranks[1].node.remote(), timeout=60))
    running = start(ranks, (None, 600.0), (None, 600.0))
    stopped.send_signal(signal.SIGSTOP)
    try:
        found = _watch(ranks, running, follower, 2.0)
    finally:
        stopped.send_signal(signal.SIGCONT)
    assert list(found) == [1]
    assert isinstance(found[1], SilentRankError)
    assert isinstance(found[1], RunError)
    assert "learner rank 1 has not answered for 2 s" in str(found[1])
