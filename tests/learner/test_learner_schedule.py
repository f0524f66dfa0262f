"""The schedule of draws: warm-up steps, steps for each new turn, and a share of recent episodes in each batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from actor_cases import save_model
from algorithm_cases import OneRank, make_algorithm
from learner_cases import make_episode
from trainer_cases import Memory, cycles, make_args, make_trainer, played

from buffer.client.remote import RemoteClient
from buffer.episodes.schema import Episode, episodes_to_batch
from buffer.folder_server import served_folder
from learner.algorithm_config import ActorConfig
from learner.algorithms.phases import Draws
from learner.config import AlgorithmName, LearnerConfig
from learner.critic_config import CriticConfig
from learner.feeding.feeder import Feeder
from learner.passes.rows import Batch, Row


def test_steps_follow_the_turns_that_a_cycle_has_collected() -> None:
    fixed = Draws("critic", 50, 8)
    assert [fixed.counted(turns).steps for turns in (None, 7, 700)] == [50, 50, 50]
    by_turn = Draws("critic", 50, 8, updates_per_turn=0.25, extra=200)
    assert [by_turn.counted(turns).steps for turns in (None, 1, 16, 400)] == [250, 201, 204, 300]
    # Counting is final: it adds the extra steps once.
    assert by_turn.counted(16).counted(16) == by_turn.counted(16)


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("name", ["archer", "archer_offline", "chai"])
def test_the_first_cycle_has_the_warm_up_steps(name: AlgorithmName) -> None:
    algorithm = make_algorithm(name, critic={"warmup_steps": 30, "steps_per_cycle": 4})
    draws: list[Any] = [algorithm.phases(cycle)[0] for cycle in range(3)]
    assert [phase.counted(None).steps for phase in draws] == [34, 4, 4]


@pytest.mark.usefixtures("one_rank")
def test_the_trainer_counts_the_turns_of_each_cycle(tmp_path: Path) -> None:
    """Cycles play four episodes of four turns; the offline cycle before them plays none."""
    schedule = {"warmup_steps": 3, "warmup_cycles": 0, "updates_per_turn": 0.25, "steps_per_cycle": 2}
    settings = {
        "micro_batch": 4,
        "critic": {"batch": 4, "unit": "episode", **schedule},
        "actor": {"batch": 4, "unit": "episode", "steps_per_cycle": 1},
        "offline": {"batch": 4, "unit": "episode", "steps_per_cycle": 1},
    }
    model, memory = save_model(tmp_path / "model"), Memory([played(seed) for seed in range(4)])
    for name, offline, expected in (("offline", 1, [5, 4, 4]), ("online", 0, [7, 4, 4])):
        changes = {"replay": memory, "cycles": 3, "offline_cycles": offline}
        arguments, events = make_args(tmp_path / name, model, "archer", settings, **changes)
        make_trainer(arguments).run()
        assert [cycle["critic/steps"] for cycle in cycles(events)] == expected
        assert [cycle["actor/steps"] for cycle in cycles(events)] == [1, 1, 1]
        assert "critic/recent_share" not in cycles(events)[0]
        order = [event["phase"] for event in events if event["kind"] == "phase" and event["cycle"] == 0]
        assert order.index("critic") < order.index("actor")


def _episode(index: int, version: int) -> Episode:
    """Return an episode of two turns that this version wrote; -1 is a demonstration."""
    episode = make_episode(f"{version}:{index}", np.arange(6), [1, 4], [2, 5], [0.0, 0.0])
    episode.versions[:] = version
    return episode


@contextmanager
def _feeder(folder: Path, versions: dict[int, int]) -> Iterator[Feeder]:
    """Yield a feeder of a real replay with this number of episodes of each version."""
    rows = [_episode(index, version) for version, count in versions.items() for index in range(count)]
    pq.write_table(pa.Table.from_batches([episodes_to_batch(rows)]), folder / "a.parquet")
    with served_folder(folder / "a.parquet", host="127.0.0.1", port=0, token="t") as (server, _):
        replay: Any = RemoteClient.at([f"127.0.0.1:{server.port}"], "t")
        replay.stats = lambda: SimpleNamespace(**replay.counts())
        rollouts: Any = SimpleNamespace(stale_error=KeyError)
        leader: Any = OneRank()
        yield Feeder(replay, rollouts, leader, LearnerConfig(micro_batch=64, prefetch_steps=10))
        replay.close()


def _rows(batch: Batch) -> list[Row]:
    return [row for rows in batch.micro_batches for row in rows]


def _samples_by_version(batch: Batch, unit: str) -> dict[int, int]:
    """Return the number of samples of each version; a drawn episode of two turns counts once."""
    found: dict[int, int] = {}
    for row in _rows(batch):
        version = int(row.episode.versions[0])
        found[version] = found.get(version, 0) + len(row.turns) // (1 if unit == "turn" else 2)
    return found


@pytest.mark.parametrize("unit", ["turn", "episode"])
def test_a_share_of_each_batch_is_recent_and_never_a_demonstration(tmp_path: Path, unit: Any) -> None:
    with _feeder(tmp_path, {-1: 40, 3: 40, 4: 10, 5: 10}) as feeder:
        share = Draws("critic", 60, 8, unit, recent_share=0.5, recent_versions=2)
        found = [_samples_by_version(batch, unit) for batch in feeder.batches(share, version=5)]
        assert len(found) == 60
        assert all(sum(counts.values()) == 8 for counts in found)
        recent = [counts.get(4, 0) + counts.get(5, 0) for counts in found]
        assert min(recent) == 4
        # Of the other half, a fifth is recent too: 4.8 of 8 in the mean, with a standard error of 0.1.
        assert np.mean(recent) == pytest.approx(4.8, abs=0.4)
        assert {version for counts in found for version in counts} == {-1, 3, 4, 5}
        only = Draws("critic", 20, 8, unit, recent_share=1.0)
        batches = list(feeder.batches(only, version=5))
        assert all(_samples_by_version(batch, unit) == {5: 8} for batch in batches)
        assert {batch.recent_share for batch in batches} == {1.0}


@pytest.mark.parametrize(("unit", "held"), [("turn", 20), ("episode", 10)])
def test_few_recent_episodes_are_not_drawn_over_and_over(tmp_path: Path, unit: Any, held: int) -> None:
    """In a long warm-up the share would be 240 draws of ten episodes of two turns."""
    with _feeder(tmp_path, {-1: 200, 5: 10}) as feeder:
        for repeats, of_batch in ((6.0, 6 * held // 60), (1.0, 0)):
            draws = Draws("critic", 60, 8, unit, recent_share=0.5, recent_repeats=repeats)
            batches = list(feeder.batches(draws, version=5))
            assert len(batches) == 60
            assert {sum(_samples_by_version(batch, unit).values()) for batch in batches} == {8}
            assert {batch.recent_share for batch in batches} == {of_batch / 8}
            others = 60 * (8 - of_batch)
            drawn = sum(_samples_by_version(batch, unit).get(5, 0) for batch in batches)
            # The draws from all of replay find one of the ten with probability 1 / 21, give or take four deviations.
            assert drawn - 60 * of_batch == pytest.approx(others / 21, abs=4 * (others / 21) ** 0.5)


def test_without_a_recent_episode_the_whole_batch_is_of_all_of_replay(tmp_path: Path) -> None:
    with _feeder(tmp_path, {-1: 20, 2: 20}) as feeder:
        for share in (0.5, 1.0):
            batches = list(feeder.batches(Draws("critic", 20, 8, "turn", recent_share=share), version=3))
            found = [_samples_by_version(batch, "turn") for batch in batches]
            assert {sum(counts.values()) for counts in found} == {8}
            assert {version for counts in found for version in counts} == {-1, 2}
            assert {batch.recent_share for batch in batches} == {0.0}


def test_equal_priorities_give_recent_and_other_samples_equal_weights(tmp_path: Path) -> None:
    """A weight compares a draw with a uniform draw from its own population, of which the recent one is smaller."""
    with _feeder(tmp_path, {-1: 40, 5: 10}) as feeder:
        draws = Draws("critic", 5, 8, "turn", recent_share=0.5, sampler="prioritised", importance=1.0)
        for batch in feeder.batches(draws, version=5):
            np.testing.assert_allclose(np.concatenate([row.weights for row in _rows(batch)]), 1.0, rtol=1e-6)
            assert batch.recent_share == 0.5


@pytest.mark.usefixtures("one_rank")
def test_the_metric_is_the_share_that_was_recent(tmp_path: Path) -> None:
    settings = {"clone": {"steps": 0}, "filtered_bc": {"batch": 4, "steps_per_cycle": 2}}
    arguments, _ = make_args(tmp_path / "run", save_model(tmp_path / "model"), "filtered_bc", settings)
    trainer = make_trainer(arguments)
    (phase,) = trainer.algorithm.phases(0)
    assert isinstance(phase, Draws)
    rows = [Row(played(seed), np.arange(4, dtype=np.int32)) for seed in range(4)]
    batches = [Batch([rows], 16, recent_share=share) for share in (0.5, 0.0)]
    asked = Draws("actor", 2, 4, recent_share=0.5)
    assert trainer.phase(asked, batches)["actor/recent_share"] == 0.25
    assert "actor/recent_share" not in trainer.phase(phase, batches)


@pytest.mark.parametrize("section", [CriticConfig, ActorConfig])
def test_a_share_of_less_than_one_sample_is_refused(section: Any) -> None:
    with pytest.raises(ValueError, match=r"`recent_share` 0.1 of a `batch` of 4 is less than one sample"):
        section(batch=4, recent_share=0.1)
