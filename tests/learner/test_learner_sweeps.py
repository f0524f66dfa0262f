"""On-policy methods take each episode in one cycle only, also while rollouts go on, and a group as a whole."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from algorithm_cases import Memory, OneRank, episodes, make_algorithm
from learner_cases import change

from learner.algorithms.base import Phase
from learner.config import LearnerConfig
from learner.engine.checkpoints import TrainerState
from learner.errors import LearnerError
from learner.feeding.feeder import Feeder
from learner.feeding.sweeps import Sweeps
from learner.train import Trainer


def _shown(*numbers: int, group: int = 1) -> list[Any]:
    """Episodes as the rollout numbers them: so many in a row play one seed."""
    return [SimpleNamespace(episode_id=f"e{number}", seed=number // group) for number in numbers]


def _ids(taken: list[Any]) -> list[str]:
    return [episode.episode_id for episode in taken]


def test_an_episode_is_taken_once_and_forgotten_when_the_window_has_left_it_behind() -> None:
    sweeps = Sweeps()
    assert _ids(sweeps.take(_shown(0, 1, 2))) == ["e0", "e1", "e2"]
    assert _ids(sweeps.take(_shown(1, 2, 3))) == ["e3"]
    assert sweeps.taken == {"e1", "e2", "e3"}
    assert sweeps.take(_shown(1, 2, 3)) == []


def test_a_group_waits_until_it_is_whole() -> None:
    sweeps = Sweeps()
    assert _ids(sweeps.take(_shown(0, 1, 2, 3, 4, group=3), group=3)) == ["e0", "e1", "e2"]
    assert _ids(sweeps.take(_shown(*range(6), group=3), group=3)) == ["e3", "e4", "e5"]
    # One that lost a member to its environment is left behind with the window.
    assert sweeps.take(_shown(6, 8, group=3), group=3) == []
    assert sweeps.taken == set()


def test_too_few_for_the_ranks_wait_for_more() -> None:
    sweeps = Sweeps()
    assert sweeps.take(_shown(0), at_least=2) == []
    assert _ids(sweeps.take(_shown(0, 1), at_least=2)) == ["e0", "e1"]


def _feeder(memory: Memory) -> Feeder:
    rollouts = SimpleNamespace(stale_error=KeyError)
    return Feeder(memory, rollouts, OneRank(), LearnerConfig(micro_batch=2))  # type: ignore[arg-type]


def test_a_second_sweep_over_the_same_window_is_empty_and_a_resumed_run_remembers() -> None:
    memory = Memory()
    feeder = _feeder(memory)
    phase = Phase("actor", 0, 4, "episode", max_staleness=2, sweep=True)
    assert len(feeder.sweep(phase, version=3, seed=0)) == 2
    assert feeder.sweep(phase, version=4, seed=0) == []
    resumed = _feeder(memory)
    resumed.sweeps = Sweeps(TrainerState(swept=sorted(feeder.sweeps.taken)).swept)
    assert resumed.sweep(phase, version=4, seed=0) == []


@pytest.mark.parametrize(("unit", "batch", "there"), [("episode", 9, 8), ("turn", 49, 48)])
def test_a_batch_larger_than_replay_is_refused_before_the_first_step(unit: Any, batch: int, there: int) -> None:
    memory = Memory()
    feeder = _feeder(memory)
    with pytest.raises(LearnerError, match=rf"critic phase draws {batch} {unit}s, and there are {there}; lower"):
        next(feeder.batches(Phase("critic", 2, batch, unit), version=0))
    assert memory.asked == []
    assert len(list(feeder.batches(Phase("critic", 2, there if unit == "episode" else 8, unit), version=0))) == 2


@pytest.mark.usefixtures("one_rank")
def test_on_policy_methods_refuse_what_no_policy_wrote() -> None:
    algorithm = make_algorithm("ppo")
    rows = episodes(0)[:4]
    change(rows[2], versions=np.full_like(rows[2].episode.versions, -1))
    with pytest.raises(
        LearnerError, match=rf"^ppo .* tokens of {rows[2].episode.episode_id} carry no .*archer_offline"
    ):
        algorithm.begin(algorithm.phases(0)[0], [[rows]])


@pytest.mark.usefixtures("one_rank")
def test_grpo_refuses_episodes_without_a_group() -> None:
    algorithm = make_algorithm("grpo")
    rows = episodes(0)[:4]
    for number, row in enumerate(rows):
        change(row, seed=number)
    with pytest.raises(LearnerError, match=r"each of these 4 has a seed of its own"):
        algorithm.begin(algorithm.phases(0)[0], [[rows]])


def test_the_first_episode_of_a_run_begins_a_group() -> None:
    """Seeds of runs start anywhere; a cycle must not end in the middle of a group."""
    trainer: Any = Trainer.__new__(Trainer)
    trainer.algorithm = SimpleNamespace(group=8)
    trainer.state = TrainerState(next_seed=1_000_003)
    trainer._align()
    assert trainer.state.next_seed == 1_000_000
    trainer.state.episodes, trainer.state.next_seed = 5, 1_000_005
    trainer._align()
    assert trainer.state.next_seed == 1_000_005, "what was played already is not played again"


def test_a_cycle_waits_for_as_many_episodes_as_no_sweep_has_taken() -> None:
    """Those that came between a report and its sweep are taken already, and the next report still counts them."""
    asked, inserted = [], 100

    def report(*, at_least: int, timeout_s: float) -> Any:
        asked.append(at_least)
        return SimpleNamespace(returns=np.zeros(9))

    trainer: Any = Trainer.__new__(Trainer)
    trainer.algorithm = SimpleNamespace(group=1)
    trainer.config, trainer.state = LearnerConfig(), TrainerState()
    trainer._publish = lambda event: None
    trainer._reported = trainer._ahead = 0
    trainer.args = SimpleNamespace(
        mode="async",
        episodes_per_cycle=8,
        max_staleness=1,
        rollouts=SimpleNamespace(report=report, start=lambda **_: None),
        replay=SimpleNamespace(stats=lambda: SimpleNamespace(inserted_episodes=inserted)),
    )
    trainer._start_rollouts()
    trainer._rollout(0)
    inserted = 112  # nine reported, three more by the time of the sweep
    trainer._ahead = trainer._unreported()
    trainer._rollout(1)
    assert asked == [8, 11]


def test_a_cycle_with_fewer_episodes_than_ranks_is_refused_where_no_others_will_come() -> None:
    trainer: Any = Trainer.__new__(Trainer)
    trainer.state, trainer.leader = TrainerState(), SimpleNamespace(ranks=2, call=lambda function: function())
    trainer._unreported = lambda: 0
    empty = SimpleNamespace(sweep=lambda *_: [])
    phase = Phase("actor", 0, 4, "episode", max_staleness=0, sweep=True)
    trainer.args = SimpleNamespace(mode="sync", seed=0)
    with pytest.raises(LearnerError, match=r"fewer episodes than .* learner ranks \(2\); raise episodes_per_cycle"):
        list(trainer._batches(phase, empty, None))
    trainer.args.mode = "async"
    assert list(trainer._batches(phase, empty, None)) == []
