"""Figures of the critic on held-out episodes, against numpy and against tables with known values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from actor_cases import save_model
from algorithm_cases import OneRank, episodes
from learner_cases import flat_actions, make_episode, make_row
from table_cases import PAIRS, give_fresh, one_turn, pair, table_algorithm
from torch import Tensor
from trainer_cases import Memory, cycles, make_args, make_trainer, played, train

from buffer.episodes.schema import Episode
from buffer.errors import EmptyViewError
from learner.config import LearnerConfig
from learner.diagnosis import against_exact, return_figures, with_legal_actions
from learner.feeding.new_episodes import NewEpisodes
from learner.passes.rows import Row, distinct_fresh
from learner.training_metrics import metric_name

GAMMA = 0.8
CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "micro_batch": 2,
    "critic": {"steps_per_cycle": 2, "batch": 4, "unit": "episode", "warmup_cycles": 0},
    "actor": {"steps_per_cycle": 1, "batch": 4, "unit": "episode"},
}


def returns_of(episode: Episode, last: float) -> list[float]:
    """Return the discounted returns of all states, by their recursion."""
    g, found = 0.0 if episode.terminated else last, []
    for reward in episode.reward[::-1].tolist():
        g = reward + GAMMA * g
        found.append(g)
    return found[::-1]


def judged(seeds: Iterable[int] = range(6)) -> tuple[list[Episode], list[Tensor], list[Tensor]]:
    """Return episodes, of which every other one is truncated, with random values."""
    found = [make_row(seed, turns=seed % 3 + 1, terminated=seed % 2 == 0).episode for seed in seeds]
    rng = torch.Generator().manual_seed(1)
    return found, [torch.randn(e.turns, generator=rng) for e in found], [torch.randn((), generator=rng) for _ in found]


@pytest.mark.usefixtures("one_rank")
def test_figures_of_returns_are_those_of_numpy_and_limits_are_bootstrapped() -> None:
    found, values, last = judged()
    figures = return_figures(found, values, last, GAMMA, CPU)
    per_episode = [returns_of(e, float(end)) for e, end in zip(found, last, strict=True)]
    g, v = np.concatenate(per_episode), torch.cat(values).double().numpy()
    assert figures == pytest.approx(
        {
            "critic/explained_variance": 1 - np.var(g - v) / np.var(g),
            "critic/correlation": np.corrcoef(g, v)[0, 1],
            "critic/bias": np.mean(v - g),
            "critic/value_start": np.mean([value[0] for value in values]),
            "critic/return_start": np.mean([g[0] for g in per_episode]),
        }
    )


@pytest.mark.usefixtures("one_rank")
def test_the_explained_variance_of_perfect_values_is_1_and_of_the_mean_0() -> None:
    found, _, last = judged()
    perfect = [torch.tensor(returns_of(e, float(end))) for e, end in zip(found, last, strict=True)]
    exact = return_figures(found, perfect, last, GAMMA, CPU)
    assert (exact["critic/explained_variance"], exact["critic/bias"]) == pytest.approx((1.0, 0.0), abs=1e-6)
    mean = torch.cat(perfect).mean()
    flat = return_figures(found, [torch.full_like(g, float(mean)) for g in perfect], last, GAMMA, CPU)
    assert flat["critic/explained_variance"] == pytest.approx(0.0, abs=1e-6)
    assert "critic/correlation" not in flat


@pytest.mark.usefixtures("one_rank")
def test_returns_without_spread_explain_nothing() -> None:
    found = return_figures([one_turn([1], [2], 3.0).episode] * 2, [torch.ones(1)] * 2, [torch.ones(())] * 2, 0.9, CPU)
    assert found == {"critic/bias": -2.0, "critic/value_start": 1.0, "critic/return_start": 3.0}


def legal_of(states: dict[tuple[str, int], dict[tuple[int, ...], float]]) -> Any:
    """Return exact values that are listed by episode and turn."""
    return lambda episode, turns: [states[episode.episode_id, int(turn)] for turn in turns]


def table_rows() -> list[Row]:
    """Return one episode of two turns (state 1, action 5, state 2, action 6, state 3), truncated, and one of one."""
    long = make_episode("long", [1, 5, 2, 6, 3], [1, 3], [2, 4], [1.0, 2.0], terminated=False)
    return [Row(long, np.array([0, 1], np.int32)), one_turn([2], [5], -1.0, name="short")]


def table_archer(**critic_settings: Any) -> Any:
    """Return ArCHer with known tables: the second head is 1 higher, so that V, the mean over heads, is 0.5 higher."""
    algorithm = table_algorithm("archer", critic={"gamma": GAMMA, **critic_settings})
    critic: Any = algorithm.engines.critic.module
    for extra, head in enumerate(critic.v):
        head.value.data[1:4] = torch.tensor([0.5, 1.5, 2.5]) + extra
    for extra, head in enumerate(critic.q):
        table = torch.zeros(PAIRS)
        table[pair(1, 5)], table[pair(1, 6)], table[pair(2, 5)], table[pair(2, 6)] = 1.0, 2.0, 5.0, 3.0
        head.value.data[:] = table + extra
    return algorithm


@pytest.mark.usefixtures("one_rank")
def test_archers_figures_are_those_of_its_tables() -> None:
    exact = legal_of(
        {
            ("long", 0): {(5,): 0.0, (6,): 4.0},  # the critic's favourite, 6, is the best
            ("long", 1): {(6,): 7.0},
            ("short", 0): {(5,): -1.0, (6,): 2.0},  # its favourite, 5, is 3 worse than the best
        }
    )
    rows = table_rows()
    g = [1 + GAMMA * (2 + GAMMA * 3.0), 2 + GAMMA * 3.0, -1.0]
    v = [1.0, 2.0, 2.0]
    q, true = np.array([-0.5, 0.5, 0.0, 1.0, -1.0]), np.array([-2.0, 2.0, 0.0, -1.5, 1.5])
    expected = {
        "critic/explained_variance": 1 - np.var(np.subtract(g, v)) / np.var(g),
        "critic/correlation": np.corrcoef(g, v)[0, 1],
        "critic/bias": np.mean(v) - np.mean(g),
        "critic/value_start": 1.5,
        "critic/return_start": (g[0] + g[2]) / 2,
        "critic/exact_correlation": q @ true / math.sqrt((q @ q) * (true @ true)),
        "critic/exact_best": 2 / 3,
        "critic/exact_regret": 1.0,
    }
    algorithm = table_archer()
    assert algorithm.diagnose([rows], exact) == pytest.approx(expected, rel=1e-5)
    assert algorithm.diagnose([rows[:1], rows[1:]], exact) == pytest.approx(expected, rel=1e-5)
    assert set(algorithm.diagnose([rows], None)) == {name for name in expected if "exact" not in name}


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize(
    ("critic", "v", "advantage"),
    [
        ({}, [1.0, 2.0, 2.0], [0.5, 1.5, 3.5]),
        # The mean of Q over the fresh actions 5 and 6 of each state.
        ({"value": "fresh", "n_step": 1, "unit": "episode"}, [2.0, 4.5, 4.5], [-0.5, -1.0, 1.0]),
    ],
)
def test_the_values_of_kept_turns_are_those_of_the_tables(
    critic: dict[str, Any], v: list[float], advantage: list[float]
) -> None:
    rows = table_rows()
    for row in rows:
        give_fresh(row, [[[5], [6]] for _ in row.turns])
    found = table_archer(**critic).revalue([rows[:1], rows[1:]])
    assert found is not None
    kept = found.take(7, 9)
    assert kept is not None
    assert kept["episode_id"].to_pylist() == ["long", "long", "short"]
    assert kept["turn"].to_pylist() == [0, 1, 0]
    assert kept["q"].to_pylist() == pytest.approx([1.5, 3.5, 5.5])
    assert kept["v"].to_pylist() == pytest.approx(v)
    assert kept["advantage"].to_pylist() == pytest.approx(advantage)
    assert kept["target"].to_pylist() == [None] * 3
    assert kept["cycle"].to_pylist() == [7] * 3


@pytest.mark.usefixtures("one_rank")
def test_ppos_figures_are_those_of_its_value_at_the_states() -> None:
    algorithm = table_algorithm("ppo", ppo={"gamma": GAMMA})
    table: Any = algorithm.value.module.value
    # The value of a state is read at its last two tokens.
    entries = {pair(0, 1): 0.5, pair(5, 2): 1.5, pair(6, 3): 2.5, pair(0, 2): -1.5}
    for key, value in entries.items():
        table.value.data[key] = value
    rows = table_rows()
    long, short = (row.episode for row in rows)
    expected = return_figures(
        [long, short],
        [torch.tensor([0.5, 1.5]), torch.tensor([-1.5])],
        [torch.tensor(2.5), torch.zeros(())],
        GAMMA,
        CPU,
    )
    assert algorithm.diagnose([rows], None) == pytest.approx(expected, rel=1e-5)


def test_legal_actions_are_compared_at_eight_turns_spread_over_the_episode() -> None:
    rows = [make_row(1, turns=20, all_turns=True), make_row(2, turns=2, all_turns=True)]
    asked: dict[str, list[int]] = {}

    def exact(episode: Episode, turns: np.ndarray) -> list[dict[tuple[int, ...], float]]:
        asked[episode.episode_id] = turns.tolist()
        return [{(9,): 1.0, (8, 7): 0.0} if turn % 2 else {(6, 5): 3.0} for turn in turns]

    found, true = with_legal_actions(rows, exact)
    assert asked == {"episode-1": [0, 3, 5, 8, 11, 14, 16, 19], "episode-2": [0, 1]}
    assert [row.turns.tolist() for row in found] == list(asked.values())
    assert [a.tolist() for a in found[0].fresh_at(0)] == [[6, 5], [6, 5]]
    assert [a.tolist() for a in found[1].fresh_at(1)] == [[9], [8, 7]]
    assert [len(q) for q in true] == [1, 2, 2, 1, 2, 1, 1, 2, 1, 2]


@pytest.mark.usefixtures("one_rank")
def test_equally_good_actions_are_both_the_best_and_a_flat_critic_has_no_correlation() -> None:
    found = against_exact([torch.ones(1, 3)], [np.array([2.0, 2.0 - 1e-9])], CPU)
    assert found == pytest.approx({"critic/exact_best": 1.0, "critic/exact_regret": 0.0})


def test_distinct_fresh_actions_are_counted_by_state() -> None:
    row = make_row(0, turns=2, all_turns=True)
    row.fresh = flat_actions([[[1, 2], [1, 2], [1]], [[1], [2], [3]]])
    assert distinct_fresh([row]) == 2 + 3


def new_episodes(memory: Memory, seen: Iterable[str] = (), **settings: Any) -> NewEpisodes:
    return NewEpisodes(memory, OneRank(), LearnerConfig(micro_batch=3, **settings), 0, seen)  # type: ignore[arg-type]


def ids_of(micro_batches: list[list[Row]]) -> list[str]:
    return sorted(row.episode.episode_id for rows in micro_batches for row in rows)


def test_each_episode_is_new_once_with_all_its_turns_also_after_a_resume() -> None:
    memory = Memory([row.episode for row in episodes(0)])
    first = new_episodes(memory)
    assert ids_of(first.micro_batches(0, seed=0)) == sorted(e.episode_id for e in memory.held)
    later = [row.episode for row in episodes(1)]
    memory.held += later
    resumed = new_episodes(memory, first.seen)
    for tracker in (first, resumed):
        micro_batches = tracker.micro_batches(0, seed=1)
        assert ids_of(micro_batches) == sorted(e.episode_id for e in later)
        assert all(len(row.turns) == row.episode.turns for rows in micro_batches for row in rows)
        assert tracker.micro_batches(0, seed=2) == []


def test_a_diagnosis_takes_no_more_episodes_than_asked_for_and_none_twice() -> None:
    memory = Memory([row.episode for row in episodes(0)])
    few = new_episodes(memory, diagnosis_episodes=3)
    assert len(ids_of(few.micro_batches(0, seed=0))) == 3
    assert few.micro_batches(0, seed=0) == []


def test_a_cycle_whose_episodes_all_failed_is_not_measured() -> None:
    class Empty(Memory):
        def sweep(self, **_: Any) -> list[Episode]:
            raise EmptyViewError("none")

    assert new_episodes(Empty()).micro_batches(0, seed=0) == []


@pytest.mark.usefixtures("one_rank")
def test_the_critic_is_measured_before_it_trains_and_measuring_changes_no_step(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    measured, events = make_args(tmp_path / "a", model, "archer", SMALL)
    first = make_trainer(measured)
    seeds = [measured.seed + first.state.next_seed % 1000 + i for i in range(4)]
    expected = first.algorithm.diagnose([[Row(played(s), np.arange(4, dtype=np.int32)) for s in seeds]], None)
    first.run()
    found = cycles(events)
    assert {name: found[0][name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert "seconds/diagnosis" in found[0]
    registry = first.session.records.metrics.registry
    shown = {name: registry.get_sample_value(metric_name(name)) for name in expected}
    assert shown == {name: found[-1][name] for name in expected}
    plain, unmeasured = make_args(tmp_path / "b", model, "archer", SMALL | {"diagnosis_episodes": 0})
    train(plain)
    for with_figures, without in zip(found, cycles(unmeasured), strict=True):
        assert not {name for name in without if "explained" in name or "diagnosis" in name}
        steps = [name for name in without if name.startswith(("critic/", "actor/")) and "wait" not in name]
        assert {name: with_figures[name] for name in steps} == {name: without[name] for name in steps}


@pytest.mark.usefixtures("one_rank")
def test_a_resumed_run_does_not_measure_episodes_again(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    arguments, _ = make_args(tmp_path / "run", model, "ppo", {"ppo": {"batch": 4, "epochs": 1}}, cycles=1)
    train(arguments)
    folder = tmp_path / "run" / "checkpoints" / "cycle-00001"
    again, _ = make_args(tmp_path / "run", model, "ppo", arguments.learner, replay=arguments.replay, resume=folder)
    trainer = make_trainer(again)
    assert trainer.new_episodes.seen == sorted(e.episode_id for e in arguments.replay.held)  # type: ignore[attr-defined]
    assert trainer.new_episodes.micro_batches(trainer.state.version, seed=0) == []
