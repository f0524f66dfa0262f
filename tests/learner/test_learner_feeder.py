"""Feeder and sweeps over episodes in memory, and their requests to replay."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from algorithm_cases import OneRank, held
from trainer_cases import Memory

from learner.algorithms.phases import Draws, Sweep
from learner.config import LearnerConfig
from learner.feeding.feeder import Feeder
from learner.feeding.sweeps import Sweeps


def _feeder(memory: Memory) -> Feeder:
    rollouts = SimpleNamespace(stale_error=KeyError)
    return Feeder(memory, rollouts, OneRank(), LearnerConfig(micro_batch=2))  # type: ignore[arg-type]


def _sweeps(memory: Memory) -> Sweeps:
    return Sweeps(memory, OneRank(), LearnerConfig(micro_batch=2))  # type: ignore[arg-type]


def _ids(batches: Any) -> list[list[str]]:
    return [sorted(row.episode.episode_id for rows in batch.micro_batches for row in rows) for batch in batches]


@pytest.mark.parametrize(("batch", "sizes"), [(4, [4, 4]), (3, [3, 3, 2]), (100, [8]), (1, [1] * 8)])
def test_a_sweep_takes_every_episode_once(batch: int, sizes: list[int]) -> None:
    memory = Memory(held())
    phase = Sweep("actor", batch, max_staleness=1)
    batches = _sweeps(memory).batches(phase, version=3, seed=5)
    assert [len(ids) for ids in _ids(batches)] == sizes
    assert sorted(i for ids in _ids(batches) for i in ids) == sorted(e.episode_id for e in memory.held)
    assert all(batch.samples == 6 * size for batch, size in zip(batches, sizes, strict=True))
    assert (memory.requests[0].view, memory.requests[0].min_version) == ("actor", 2)


def test_a_sweep_is_split_by_its_seed() -> None:
    phase = Sweep("actor", 4, max_staleness=0)
    split = [_ids(_sweeps(Memory(held())).batches(phase, version=0, seed=seed)) for seed in (1, 1, 2)]
    assert split[0] == split[1] != split[2]


def test_draws_say_which_share_they_want() -> None:
    memory = Memory(held())
    feeder = _feeder(memory)
    assert len(list(feeder.batches(Draws("actor", 2, 4, best=0.1), version=3))) == 2
    assert [request.best for request in memory.requests] == [0.1]
    assert (memory.requests[0].view, memory.requests[0].min_version) == ("critic", None)


class Engines:
    """Returns one token for each action and counts the requested actions; fails while `stale`."""

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
    memory, engines = Memory(held()), Engines()
    sizes: list[int] = []
    sample = memory.sample
    memory.sample = lambda asked, **more: (sizes.append(asked.n), sample(asked, **more))[1]  # type: ignore[method-assign]
    config = LearnerConfig(micro_batch=2, prefetch_steps=ahead)
    feeder = Feeder(memory, engines, OneRank(), config)  # type: ignore[arg-type]
    batches = list(feeder.batches(Draws("critic", 5, 4, fresh=2), version=3))
    assert len(batches) == 5
    assert sizes == blocks
    # Two actions for each of six turns of each drawn episode, for every size of the requests.
    assert sum(engines.asked) == 2 * 6 * 20
    rows = [row for batch in batches for rows in batch.micro_batches for row in rows]
    assert all(row.fresh.counts.tolist() == [2] * 6 for row in rows)
    assert [feeder.count_fresh(), feeder.count_fresh()] == [2 * 6 * 20, 0]


def test_what_stale_engines_owed_is_asked_for_again() -> None:
    memory, engines = Memory(held()), Engines(stale=True)
    feeder = Feeder(memory, engines, OneRank(), LearnerConfig(micro_batch=2))  # type: ignore[arg-type]

    class Retrying(OneRank):
        def scatter(self, function: Any) -> Any:
            try:
                return super().scatter(function)
            except KeyError:
                engines.stale = False  # a broadcast has reached them
                return super().scatter(function)

    feeder._leader = Retrying()  # type: ignore[assignment]
    batches = list(feeder.batches(Draws("critic", 2, 4, fresh=1), version=3))
    assert len(batches) == 2
    assert len(memory.requests) == 1  # the drawn samples are kept
    assert sum(engines.asked) == 2 * 6 * 8


def test_the_next_phase_is_asked_for_when_this_one_is() -> None:
    memory, engines = Memory(held()), Engines()
    feeder = Feeder(memory, engines, OneRank(), LearnerConfig(micro_batch=2))  # type: ignore[arg-type]
    critic, actor = Draws("critic", 2, 4, fresh=1), Draws("actor", 3, 4, fresh=2)
    first = feeder.batches(critic, 3, then=actor)
    next(first)
    assert (len(memory.requests), sum(engines.asked)) == (2, 6 * 4 * 2 + 2 * 6 * 4 * 3)
    assert len(list(first)) == 1
    assert len(list(feeder.batches(actor, 3))) == 3
    assert len(memory.requests) == 2
    assert not any(answer.cancelled() for answer in engines.answers)
    # Actions of an older policy version are not used.
    next(feeder.batches(critic, 3, then=actor))
    next(feeder.batches(actor, 4))
    assert len(memory.requests) == 5
    # Draws of recent episodes wait until their own phase begins.
    recent = Draws("actor", 3, 4, fresh=2, max_staleness=1)
    assert len(list(feeder.batches(critic, 4, then=recent))) == 2
    assert [request.view for request in memory.requests[5:]] == ["critic"]


def test_a_phase_that_ends_early_gives_up_what_is_not_written() -> None:
    memory, engines = Memory(held()), Engines()
    # The steps share no episode, so that no step waits for the answer of another step.
    memory.sample = lambda asked, **_: SimpleNamespace(  # type: ignore[method-assign]
        episodes=[memory.held[i] for i in range(asked.n)], turns=np.full(asked.n, -1)
    )
    feeder = Feeder(memory, engines, OneRank(), LearnerConfig(micro_batch=2))  # type: ignore[arg-type]
    phase = feeder.batches(Draws("actor", 2, 4, fresh=1), version=3)
    request = engines.request

    def one_answer(*asked: Any, **more: Any) -> Future[Any]:
        answer = request(*asked, **more)
        engines.silent = True
        return answer

    engines.request = one_answer  # type: ignore[method-assign]
    next(phase)
    phase.close()
    assert [answer.cancelled() for answer in engines.answers] == [False, True]
