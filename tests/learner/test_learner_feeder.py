"""The feeder over episodes in memory: draws and sweeps, and what each asks of replay."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from algorithm_cases import Memory, OneRank

from learner.algorithms.base import Phase
from learner.config import LearnerConfig
from learner.feeding.feeder import Feeder


def _feeder(memory: Memory) -> Feeder:
    rollouts = SimpleNamespace(stale_error=KeyError)
    return Feeder(memory, rollouts, OneRank(), LearnerConfig(micro_batch=2))  # type: ignore[arg-type]


def _ids(batches: Any) -> list[list[str]]:
    return [sorted(row.episode.episode_id for rows in batch.micro_batches for row in rows) for batch in batches]


@pytest.mark.parametrize(("batch", "sizes"), [(4, [4, 4]), (3, [3, 3, 2]), (100, [8]), (1, [1] * 8)])
def test_a_sweep_takes_every_episode_once(batch: int, sizes: list[int]) -> None:
    memory = Memory()
    phase = Phase("actor", 0, batch, "episode", max_staleness=1, sweep=True)
    batches = _feeder(memory).sweep(phase, version=3, seed=5)
    assert [len(ids) for ids in _ids(batches)] == sizes
    assert sorted(i for ids in _ids(batches) for i in ids) == sorted(e.episode_id for e in memory.held)
    assert all(batch.samples == 6 * size for batch, size in zip(batches, sizes, strict=True))
    assert (memory.asked[0]["view"], memory.asked[0]["min_version"]) == ("actor", 2)


def test_a_sweep_is_split_by_its_seed() -> None:
    phase = Phase("actor", 0, 4, "episode", max_staleness=0, sweep=True)
    split = [_ids(_feeder(Memory()).sweep(phase, version=0, seed=seed)) for seed in (1, 1, 2)]
    assert split[0] == split[1] != split[2]


def test_draws_say_which_share_they_want() -> None:
    memory = Memory()
    feeder = _feeder(memory)
    assert len(list(feeder.batches(Phase("actor", 2, 4, "episode", best=0.1), version=3))) == 2
    assert [asked["best"] for asked in memory.asked] == [0.1]
    assert (memory.asked[0]["view"], memory.asked[0]["min_version"]) == ("critic", None)


class Engines:
    """Writes one token for each action and counts what it is asked for; while stale it only says so."""

    stale_error = KeyError

    def __init__(self, *, stale: bool = False) -> None:
        self.asked: list[int] = []
        self.answers: list[Future[Any]] = []
        self.stale = stale
        self.silent = False

    def request(self, prompts: list[np.ndarray], n: np.ndarray, *, logprobs: bool) -> Future[Any]:
        self.asked.append(int(n.sum()))
        total = int(n.sum())
        answer: Future[Any] = Future()
        self.answers.append(answer)
        if self.silent:
            return answer
        if self.stale:
            answer.set_exception(KeyError("no engine holds the weights"))
        else:
            versions = np.full(total, 3, dtype=np.int32)
            answer.set_result(
                SimpleNamespace(tokens=versions, offsets=np.arange(total + 1), logprobs=versions, versions=versions)
            )
        return answer


@pytest.mark.parametrize(("ahead", "blocks"), [(64, [20]), (4, [16, 4]), (1, [4] * 5)])
def test_a_phase_is_drawn_and_asked_for_in_blocks_of_bounded_size(ahead: int, blocks: list[int]) -> None:
    memory, engines = Memory(), Engines()
    sizes: list[int] = []
    sample = memory.sample
    memory.sample = lambda asked, **more: (sizes.append(asked.n), sample(asked, **more))[1]  # type: ignore[method-assign]
    config = LearnerConfig(micro_batch=2, prefetch_steps=ahead)
    feeder = Feeder(memory, engines, OneRank(), config)  # type: ignore[arg-type]
    batches = list(feeder.batches(Phase("critic", 5, 4, "episode", fresh=2), version=3))
    assert len(batches) == 5
    assert sizes == blocks
    # Two actions for each of six turns of each episode drawn, whatever was asked for together.
    assert sum(engines.asked) == 2 * 6 * 20
    rows = [row for batch in batches for rows in batch.micro_batches for row in rows]
    assert all(row.fresh.counts.tolist() == [2] * 6 for row in rows)


def test_what_stale_engines_owed_is_asked_for_again() -> None:
    memory, engines = Memory(), Engines(stale=True)
    feeder = Feeder(memory, engines, OneRank(), LearnerConfig(micro_batch=2))  # type: ignore[arg-type]

    class Retrying(OneRank):
        def scatter(self, function: Any) -> Any:
            try:
                return super().scatter(function)
            except KeyError:
                engines.stale = False  # a broadcast has reached them
                return super().scatter(function)

    feeder._leader = Retrying()  # type: ignore[assignment]
    batches = list(feeder.batches(Phase("critic", 2, 4, "episode", fresh=1), version=3))
    assert len(batches) == 2
    assert len(memory.asked) == 1  # what was drawn stays
    assert sum(engines.asked) == 2 * 6 * 8


def test_the_next_phase_is_asked_for_when_this_one_is() -> None:
    memory, engines = Memory(), Engines()
    feeder = Feeder(memory, engines, OneRank(), LearnerConfig(micro_batch=2))  # type: ignore[arg-type]
    critic, actor = Phase("critic", 2, 4, "episode", fresh=1), Phase("actor", 3, 4, "episode", fresh=2)
    first = feeder.batches(critic, 3, then=actor)
    next(first)
    assert (len(memory.asked), sum(engines.asked)) == (2, 6 * 4 * 2 + 2 * 6 * 4 * 3)
    assert len(list(first)) == 1
    assert len(list(feeder.batches(actor, 3))) == 3
    assert len(memory.asked) == 2
    assert not any(answer.cancelled() for answer in engines.answers)
    # A policy that has changed meanwhile would have to write them anew.
    next(feeder.batches(critic, 3, then=actor))
    next(feeder.batches(actor, 4))
    assert len(memory.asked) == 5
    # Recent episodes are those at the beginning of the phase that draws them.
    recent = Phase("actor", 3, 4, "episode", fresh=2, max_staleness=1)
    assert len(list(feeder.batches(critic, 4, then=recent))) == 2
    assert [asked["view"] for asked in memory.asked[5:]] == ["critic"]


def test_a_phase_that_ends_early_gives_up_what_is_not_written() -> None:
    memory, engines = Memory(), Engines()
    # One draw of each step's own, so that no step waits for another's answer.
    memory.sample = lambda asked, **_: SimpleNamespace(  # type: ignore[method-assign]
        episodes=[memory.held[i] for i in range(asked.n)], turns=np.full(asked.n, -1)
    )
    feeder = Feeder(memory, engines, OneRank(), LearnerConfig(micro_batch=2))  # type: ignore[arg-type]
    phase = feeder.batches(Phase("actor", 2, 4, "episode", fresh=1), version=3)
    request = engines.request

    def one_answer(*asked: Any, **more: Any) -> Future[Any]:
        answer = request(*asked, **more)
        engines.silent = True
        return answer

    engines.request = one_answer  # type: ignore[method-assign]
    next(phase)
    phase.close()
    assert [answer.cancelled() for answer in engines.answers] == [False, True]
