"""On-policy methods sweep each episode in one cycle only, in both modes, and a group together."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from actor_cases import save_model
from algorithm_cases import OneRank, episodes, held, make_algorithm
from learner_cases import change
from trainer_cases import Memory, cycles, make_args, make_session, make_trainer, played, train

from buffer.rollout_records import CollectReport
from learner.algorithms.phases import Draws, Sweep
from learner.config import LearnerConfig
from learner.engine.checkpoints import TrainerState
from learner.errors import LearnerError
from learner.feeding.feeder import Feeder
from learner.feeding.sweeps import Sweeps


def _sweeps(memory: Memory, taken: Iterable[str] = ()) -> Sweeps:
    return Sweeps(memory, OneRank(), LearnerConfig(micro_batch=2), taken)  # type: ignore[arg-type]


def _shown(*numbers: int, group: int = 1) -> list[Any]:
    """Return episodes with the ids of the rollouts; `group` consecutive episodes play one seed."""
    return [SimpleNamespace(episode_id=f"e{number}", seed=number // group) for number in numbers]


def _ids(taken: list[Any]) -> list[str]:
    return [episode.episode_id for episode in taken]


def test_an_episode_is_taken_once_and_forgotten_when_the_window_has_left_it_behind() -> None:
    sweeps = _sweeps(Memory())
    assert _ids(sweeps.take(_shown(0, 1, 2))) == ["e0", "e1", "e2"]
    assert _ids(sweeps.take(_shown(1, 2, 3))) == ["e3"]
    assert sweeps.taken == {"e1", "e2", "e3"}
    assert sweeps.take(_shown(1, 2, 3)) == []


def test_a_group_waits_until_it_is_whole() -> None:
    sweeps = _sweeps(Memory())
    assert _ids(sweeps.take(_shown(0, 1, 2, 3, 4, group=3), group=3)) == ["e0", "e1", "e2"]
    assert _ids(sweeps.take(_shown(*range(6), group=3), group=3)) == ["e3", "e4", "e5"]
    # An incomplete group is dropped when it leaves the window.
    assert sweeps.take(_shown(6, 8, group=3), group=3) == []
    assert sweeps.taken == set()


def test_too_few_for_the_ranks_wait_for_more() -> None:
    sweeps = _sweeps(Memory())
    assert sweeps.take(_shown(0), at_least=2) == []
    assert _ids(sweeps.take(_shown(0, 1), at_least=2)) == ["e0", "e1"]


def test_a_second_sweep_over_the_same_window_is_empty_and_a_resumed_run_remembers() -> None:
    memory = Memory(held())
    sweeps, sweep = _sweeps(memory), Sweep("actor", 4, max_staleness=2)
    assert len(sweeps.batches(sweep, version=3, seed=0)) == 2
    assert sweeps.batches(sweep, version=4, seed=0) == []
    resumed = _sweeps(memory, TrainerState(swept=sorted(sweeps.taken)).swept)
    assert resumed.batches(sweep, version=4, seed=0) == []


@pytest.mark.parametrize(("unit", "batch", "there"), [("episode", 9, 8), ("turn", 49, 48)])
def test_a_batch_larger_than_replay_is_refused_before_the_first_step(unit: Any, batch: int, there: int) -> None:
    memory = Memory(held())
    feeder = Feeder(memory, SimpleNamespace(stale_error=KeyError), OneRank(), LearnerConfig(micro_batch=2))  # type: ignore[arg-type]
    with pytest.raises(LearnerError, match=rf"critic phase draws {batch} {unit}s, and there are {there}; lower"):
        next(feeder.batches(Draws("critic", 2, batch, unit), version=0))
    assert memory.requests == []
    assert len(list(feeder.batches(Draws("critic", 2, there if unit == "episode" else 8, unit), version=0))) == 2


@pytest.mark.usefixtures("one_rank")
def test_on_policy_methods_refuse_what_no_policy_wrote() -> None:
    algorithm = make_algorithm("ppo")
    rows = episodes(0)[:4]
    change(rows[2], versions=np.full_like(rows[2].episode.versions, -1))
    with pytest.raises(LearnerError, match=rf"^ppo .* tokens of {rows[2].episode.episode_id} have no .*archer_offline"):
        algorithm.begin([[rows]])


@pytest.mark.usefixtures("one_rank")
def test_grpo_refuses_episodes_without_a_group() -> None:
    algorithm = make_algorithm("grpo")
    rows = episodes(0)[:4]
    for number, row in enumerate(rows):
        change(row, seed=number)
    with pytest.raises(LearnerError, match=r"each of these 4 has a seed of its own"):
        algorithm.begin([[rows]])


@pytest.mark.usefixtures("one_rank")
def test_the_first_episode_of_a_run_begins_a_group(tmp_path: Path) -> None:
    """A run's first seed can be any number, and a cycle must not end in the middle of a group."""
    arguments, _ = make_args(tmp_path, save_model(tmp_path / "model"), "grpo", {})
    collector = make_session(arguments).collector
    collector.group = 8
    collector.state.next_seed = 1_000_003
    collector.collect()
    assert collector.state.next_seed == 1_000_000 + 4, "four episodes from the start of the group"
    collector.collect()
    assert collector.state.next_seed == 1_000_000 + 8, "seeds that were played are not played again"


@pytest.mark.usefixtures("one_rank")
def test_a_cycle_waits_for_as_many_episodes_as_no_sweep_has_taken(tmp_path: Path) -> None:
    """Episodes between a report and its sweep are swept already, and the next report still counts them."""
    asked, inserted = [], 100
    arguments, _ = make_args(tmp_path, save_model(tmp_path / "model"), "reinforce", {}, mode="async")
    collector = make_session(arguments).collector
    rollouts: Any = arguments.rollouts
    report = rollouts.report

    def reporting(*, at_least: int, timeout_s: float) -> CollectReport:
        asked.append(at_least)
        return report(at_least=9, timeout_s=timeout_s)

    rollouts.report = reporting
    arguments.replay.stats = lambda: SimpleNamespace(inserted_episodes=inserted)  # type: ignore[assignment, method-assign]
    collector.start()
    collector.collect()
    inserted = 112  # nine reported, three more at the time of the sweep
    collector.note_sweep()
    collector.collect()
    assert asked == [4, 7]


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_only_in_sync_mode_an_empty_sweep_is_refused_because_no_other_episodes_follow(
    tmp_path: Path, mode: str
) -> None:
    settings = {"reinforce": {"batch": 4}}
    arguments, _ = make_args(tmp_path, save_model(tmp_path / "model"), "reinforce", settings, mode=mode, cycles=9)
    trainer = make_trainer(arguments)
    trainer.sweeps.taken = {played(seed).episode_id for seed in range(4)}
    if mode == "async":
        trainer.session.collector.start()
        assert trainer.state.cycle == 0
        trainer.cycle(online=True)
        return
    with pytest.raises(LearnerError, match=r"fewer episodes than .* learner ranks \(1\); raise episodes_per_cycle"):
        trainer.cycle(online=True)


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_weights_are_broadcast_only_in_cycles_that_change_the_policy(tmp_path: Path, mode: str) -> None:
    """PPO's first cycle trains the value alone. In async mode the rollouts may then play on with the same version."""
    settings = {"micro_batch": 2, "ppo": {"batch": 4, "epochs": 1, "warmup_cycles": 1}}
    arguments, events = make_args(tmp_path, save_model(tmp_path / "model"), "ppo", settings, mode=mode)
    assert train(arguments) == ["all"]
    assert [metrics["policy_version"] for metrics in cycles(events)] == [0, 1]
    # The weights that the engines had loaded were proved at the start, and played both cycles.
    assert [metrics["proof_gap"] < 1e-6 for metrics in cycles(events)] == [True, True]
    rollouts: Any = arguments.rollouts
    assert rollouts.admitted == ([4] if mode == "async" else [])
