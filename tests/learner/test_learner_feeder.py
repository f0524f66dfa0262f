"""The feeder over episodes in memory: draws and sweeps, and what each asks of replay."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from algorithm_cases import Memory, OneRank

from learner.algorithms.base import Phase
from learner.config import LearnerConfig
from learner.feeder import Feeder


def _feeder(memory: Memory) -> Feeder:
    rollouts = SimpleNamespace(stale_error=KeyError)
    return Feeder(memory, rollouts, OneRank(), LearnerConfig(micro_batch=2))  # type: ignore[arg-type]


def _ids(batches: Any) -> list[list[str]]:
    return [sorted(row.episode_id for rows in batch.micro_batches for row in rows) for batch in batches]


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
    assert [asked["best"] for asked in memory.asked] == [0.1, 0.1]
    assert (memory.asked[0]["view"], memory.asked[0]["min_version"]) == ("critic", None)
