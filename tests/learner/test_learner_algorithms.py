"""The rules of each algorithm, on one rank with real engines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from algorithm_cases import episodes, make_algorithm, run_cycle
from learner_cases import change

from learner.algorithms.archer import Archer
from learner.algorithms.grpo import Grpo
from learner.algorithms.ppo import Ppo
from learner.algorithms.reinforce import Reinforce
from learner.config import LearnerConfig
from learner.engine.engines import Engine
from learner.passes.rows import action_record

pytestmark = pytest.mark.usefixtures("one_rank")


@pytest.mark.parametrize("name", sorted(set(LearnerConfig.algorithms()) - {"bc", "chai"}))
def test_each_algorithm_changes_the_policy(name: str) -> None:
    algorithm = make_algorithm(name)  # type: ignore[arg-type]
    before = [p.detach().clone() for p in algorithm.policy_model.parameters()]
    metrics = run_cycle(algorithm, 0)
    assert np.isfinite(np.array([value for step in metrics for value in step])).all()
    moved = [
        float((a - b).detach().abs().max()) for a, b in zip(before, algorithm.policy_model.parameters(), strict=True)
    ]
    assert max(moved) > 1e-4


def test_chai_leaves_the_policy_and_judges_the_best_of_its_proposals() -> None:
    algorithm = make_algorithm("chai")
    before = [p.detach().clone() for p in algorithm.policy_model.parameters()]
    (phase,) = algorithm.phases(0)
    assert (phase.name, phase.fresh) == ("critic", 5)
    run_cycle(algorithm, 0)
    assert all(torch.equal(a, b) for a, b in zip(before, algorithm.policy_model.parameters(), strict=True))


def test_bc_does_nothing_in_its_cycles() -> None:
    assert run_cycle(make_algorithm("bc"), 0) == []


def test_each_phase_of_archer_leaves_the_other_half_as_it_is() -> None:
    algorithm = make_algorithm("archer")
    assert isinstance(algorithm, Archer)
    halves = [list(algorithm.policy_model.parameters()), list(algorithm.engines.critic.module.parameters())]
    rows = episodes(0)[:2]
    samples = sum(len(row.turns) for row in rows)
    for phase, still, moving in zip(algorithm.phases(0), halves, reversed(halves), strict=True):
        before = [[p.detach().clone() for p in half] for half in (still, moving)]
        algorithm.step(phase, [rows], samples, version=1)
        assert all(torch.equal(a, b) for a, b in zip(before[0], still, strict=True))
        assert any(not torch.equal(a, b) for a, b in zip(before[1], moving, strict=True))


def test_offline_to_online_asks_for_fresh_actions_only_when_online() -> None:
    algorithm = make_algorithm("archer", offline_cycles=2)
    assert [phase.fresh for phase in algorithm.phases(1)] == [0, 0]
    assert [phase.fresh for phase in algorithm.phases(2)] == [2, 1]


def test_reinforce_gives_each_token_its_turns_return() -> None:
    algorithm = make_algorithm("reinforce", reinforce={"baseline": False, "gamma": 0.5})
    assert isinstance(algorithm, Reinforce)
    row = episodes(0)[0]
    change(row, reward=np.array([0, 0, 4, 0, 0, 8], dtype=np.float32))
    found = algorithm.token_advantages([[[row]]])[row.episode.episode_id]
    expected = np.repeat([1 + 0.25, 2 + 0.5, 4 + 1, 2, 4, 8], row.episode.action_end - row.episode.action_start)
    np.testing.assert_allclose(found, expected)


def test_grpo_compares_an_episode_with_its_group_only() -> None:
    algorithm = make_algorithm("grpo", grpo={"scale": False})
    assert isinstance(algorithm, Grpo)
    assert algorithm.group == 4
    rows = episodes(0)
    for index, row in enumerate(rows):
        change(row, reward=np.zeros(6, dtype=np.float32))
        row.episode.reward[-1] = index  # the second group's returns are all higher, which has no effect
    found = algorithm.token_advantages([[rows]])
    for index, row in enumerate(rows):
        np.testing.assert_allclose(found[row.episode.episode_id], index % 4 - 1.5)


@pytest.mark.parametrize("terminated", [True, False])
def test_ppo_bootstraps_through_limits_and_stops_at_ends(terminated: bool) -> None:
    """With gamma and both traces 1, A + V is the sum of the rewards to go, plus V(s_T) after a time limit."""
    algorithm = make_algorithm("ppo", ppo={"gamma": 1.0, "lambda_turn": 1.0, "lambda_token": 1.0})
    assert isinstance(algorithm, Ppo)
    row = episodes(0)[0]
    change(row, terminated=terminated)
    advantage = algorithm.token_advantages([[[row]]])[row.episode.episode_id]
    layout = algorithm.encoder.encode([row], ("action", "next_state"))
    where = layout.points["next_state"]
    last = type(where)(where.row[-1:], where.column[-1:])
    with torch.no_grad():
        values, end = algorithm.value(layout, layout.predictions["action"], last)
    to_go = np.repeat(np.cumsum(row.episode.reward[::-1])[::-1], row.episode.action_end - row.episode.action_start)
    expected = to_go + (0.0 if terminated else float(end)) - values.numpy()
    np.testing.assert_allclose(advantage, expected, atol=1e-5)


def test_ppos_advantages_are_those_of_a_recursion_over_tokens() -> None:
    """Rewards, the discount gamma and the trace of turns apply at the end of a turn only."""
    gamma, across, within = 0.9, 0.8, 0.7
    algorithm = make_algorithm("ppo", ppo={"gamma": gamma, "lambda_turn": across, "lambda_token": within})
    assert isinstance(algorithm, Ppo)
    rows = episodes(0)[:3]
    assert {row.episode.terminated for row in rows} == {True, False}
    found = algorithm.token_advantages([[rows[:2]], [rows[2:]]])
    for row in rows:
        layout = algorithm.encoder.encode([row], ("action", "next_state"))
        with torch.no_grad():
            values, after = algorithm.value(layout, layout.predictions["action"], layout.points["next_state"])
        lengths = row.episode.action_end - row.episode.action_start
        turn_of = np.repeat(np.arange(len(lengths)), lengths)
        following, carried, expected = float(after[-1]) * (not row.episode.terminated), 0.0, []
        for h in reversed(range(len(turn_of))):
            ends = h + 1 == len(turn_of) or turn_of[h + 1] != turn_of[h]
            reward = float(row.episode.reward[turn_of[h]]) if ends else 0.0
            discount, trace = (gamma, across) if ends else (1.0, within)
            carried = reward + discount * following - float(values[h]) + discount * trace * carried
            following = float(values[h])
            expected.append(carried)
        np.testing.assert_allclose(found[row.episode.episode_id], expected[::-1], atol=1e-5)
        np.testing.assert_allclose(
            algorithm._targets[row.episode.episode_id], found[row.episode.episode_id] + values, atol=1e-5
        )


def _seen_norms(engine: Engine, lr: float) -> list[float]:
    """Return a list to which each step adds the norm of its clipped gradient. Sets the learning rate to `lr`."""
    norms: list[float] = []

    def note(*_: object) -> None:
        gradients = [p.grad for p in engine.module.parameters() if p.grad is not None]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))

    engine.set_lr(lr)
    engine.ds.optimizer.register_step_pre_hook(note)
    return norms


def test_the_gradients_of_actor_and_critic_are_clipped_apart_and_none_is_stale() -> None:
    """Each gradient is clipped to its own norm, and a repeated step has the same gradient, not the sum of both."""
    algorithm = make_algorithm(
        "archer",
        critic={"max_grad_norm": 1e-3, "tau": 1e-9},
        actor={"max_grad_norm": 1e-2, "normalise_advantage": True},
    )
    assert isinstance(algorithm, Archer)
    norms = {"critic": _seen_norms(algorithm.engines.critic, 0.0), "actor": _seen_norms(algorithm.policy, 0.0)}
    rows = episodes(0)[:2]
    for row in rows:
        change(
            row, reward=row.episode.reward * 100.0
        )  # a critic whose gradient would drown the actor's under one clipping
    samples = sum(len(row.turns) for row in rows)
    before = {}
    for phase in (*algorithm.phases(0), *algorithm.phases(0)):
        metrics = algorithm.step(phase, [rows[:1], rows[1:]], samples, version=1).metrics
        norm = metrics[f"{phase.name}/norm"]
        assert norm > 0.02
        assert norm == pytest.approx(before.setdefault(phase.name, norm), rel=1e-5)
    assert before["critic"] > 50 * before["actor"]
    assert norms["critic"] == pytest.approx([1e-3] * 2, rel=1e-3)
    assert norms["actor"] == pytest.approx([1e-2] * 2, rel=1e-3)


def test_a_gradient_below_its_norm_is_left_as_it_is() -> None:
    algorithm = make_algorithm("archer", critic={"max_grad_norm": 1e6}, actor={"max_grad_norm": 1e6})
    assert isinstance(algorithm, Archer)
    norms = _seen_norms(algorithm.engines.critic, 0.0)
    rows = episodes(0)[:2]
    samples = sum(len(row.turns) for row in rows)
    metrics = algorithm.step(algorithm.phases(0)[0], [rows[:1], rows[1:]], samples, version=1).metrics
    assert norms == pytest.approx([metrics["critic/norm"]], rel=1e-5)


def test_the_token_level_baseline_reads_the_policys_features_without_changing_them() -> None:
    algorithm = make_algorithm("archer", actor={"token_baseline": True})
    assert isinstance(algorithm, Archer)
    layout = algorithm.engines.policy_encoder.encode(episodes(0)[:2], ("fresh",), 0)
    module = algorithm.policy.module
    _, baseline = module(layout, layout.predictions["fresh"], baseline=True)
    baseline.square().sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in algorithm.policy_model.parameters())
    assert all(p.grad is not None and p.grad.any() for p in module.value.parameters())


def test_ppo_learns_the_value_alone_while_it_warms_up() -> None:
    algorithm = make_algorithm("ppo", ppo={"warmup_cycles": 1})
    before = [p.detach().clone() for p in algorithm.policy_model.parameters()]
    run_cycle(algorithm, 0)
    for a, b in zip(before, algorithm.policy_model.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    run_cycle(algorithm, 1)
    assert any((a - b).abs().max() > 1e-4 for a, b in zip(before, algorithm.policy_model.parameters(), strict=True))


def test_action_record_follows_the_turns_that_count() -> None:
    row = episodes(0)[0]
    lengths = row.episode.action_end - row.episode.action_start
    change(row, logprobs=np.arange(lengths.sum(), dtype=np.float32))
    row.turns = np.array([2, 0], dtype=np.int32)
    logprobs, versions = action_record([row])
    start = lengths[:2].sum()
    np.testing.assert_array_equal(logprobs, [*range(start, start + lengths[2]), *range(lengths[0])])
    assert len(versions) == len(logprobs)
