"""Each algorithm's own rules, on one rank over real engines."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.distributed as dist
from algorithm_cases import episodes, make_algorithm, run_cycle

from learner.algorithms.archer import Archer
from learner.algorithms.build import ALGORITHMS
from learner.algorithms.grpo import Grpo
from learner.algorithms.ppo import Ppo
from learner.algorithms.reinforce import Reinforce
from learner.rows import action_record


@pytest.fixture(scope="module", autouse=True)
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A process group of one, as DeepSpeed and the metrics' sums want it."""
    rendezvous = tmp_path_factory.mktemp("group") / "store"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
            patch.setenv(name, value)
        dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=0, world_size=1)
        yield
        dist.destroy_process_group()


@pytest.mark.parametrize("name", sorted(set(ALGORITHMS) - {"bc", "chai"}))
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
    row.reward = np.array([0, 0, 4, 0, 0, 8], dtype=np.float32)
    found = algorithm.token_advantages([[[row]]])[row.episode_id]
    expected = np.repeat([1 + 0.25, 2 + 0.5, 4 + 1, 2, 4, 8], row.action_end - row.action_start)
    np.testing.assert_allclose(found, expected)


def test_grpo_compares_an_episode_with_its_group_only() -> None:
    algorithm = make_algorithm("grpo", grpo={"scale": False})
    assert isinstance(algorithm, Grpo)
    assert algorithm.group == 4
    rows = episodes(0)
    for index, row in enumerate(rows):
        row.reward = np.zeros(6, dtype=np.float32)
        row.reward[-1] = index  # the second group's are all higher, and that must not matter
    found = algorithm.token_advantages([[rows]])
    for index, row in enumerate(rows):
        np.testing.assert_allclose(found[row.episode_id], index % 4 - 1.5)


@pytest.mark.parametrize("terminated", [True, False])
def test_ppo_bootstraps_through_limits_and_stops_at_ends(terminated: bool) -> None:
    """With gamma and both traces 1, A + V is the sum of the rewards to go, plus V(s_T) where a limit cut."""
    algorithm = make_algorithm("ppo", ppo={"gamma": 1.0, "lambda_turn": 1.0, "lambda_token": 1.0})
    assert isinstance(algorithm, Ppo)
    row = episodes(0)[0]
    row.terminated = terminated
    advantage = algorithm.token_advantages([[[row]]])[row.episode_id]
    layout = algorithm.encoder.encode([row], ("action", "next_state"))
    where = layout.points["next_state"]
    last = type(where)(where.row[-1:], where.column[-1:])
    with torch.no_grad():
        values, end = algorithm.value(layout, layout.predictions["action"], last)
    to_go = np.repeat(np.cumsum(row.reward[::-1])[::-1], row.action_end - row.action_start)
    expected = to_go + (0.0 if terminated else float(end)) - values.numpy()
    np.testing.assert_allclose(advantage, expected, atol=1e-5)


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
    lengths = row.action_end - row.action_start
    row.logprobs = np.arange(lengths.sum(), dtype=np.float32)
    row.turns = np.array([2, 0], dtype=np.int32)
    logprobs, versions = action_record([row])
    start = lengths[:2].sum()
    np.testing.assert_array_equal(logprobs, [*range(start, start + lengths[2]), *range(lengths[0])])
    assert len(versions) == len(logprobs)
