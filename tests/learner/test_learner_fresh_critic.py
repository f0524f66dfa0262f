"""The critic whose V is a backup of fresh actions: its targets, codes and fixed points, against closed forms."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from learner_cases import change
from table_cases import PAD, TOKENS, give_fresh, pair, table_algorithm
from test_learner_tabular import (
    FRESH,
    GAMMA,
    LEFT,
    PAIRS,
    POLICY,
    RIGHT,
    STATES,
    Table,
    _episode,
    _fixed_point,
    _mean,
    _one_step,
)

from learner.algorithms.fresh_critic import require_support
from learner.errors import LearnerError
from learner.losses import backup, improvement_weights, retrace_target
from learner.models.value_codes import HistogramCode, ScalarCode
from learner.passes.rows import Row

pytestmark = pytest.mark.usefixtures("one_rank")


def _logits(right: dict[int, float]) -> dict[tuple[int, int], list[float]]:
    """Return the logits of a policy that moves right with these probabilities, whatever token came before a state."""
    found = {}
    for before, (state, p) in itertools.product((PAD, LEFT, RIGHT), right.items()):
        row = [-30.0] * TOKENS
        row[RIGHT], row[LEFT] = float(np.log(p)), float(np.log(1 - p))
        found[before, state] = row
    return found


UNIFORM = dict.fromkeys(STATES, 0.5)


def _data(turns: int = 3, *, demonstrated: bool = False) -> list[Row]:
    """Return every episode of up to `turns` turns of uniform actions, as often as uniform actions give it."""
    rows = []
    for state in STATES:
        for actions in itertools.product((LEFT, RIGHT), repeat=turns):
            row = _episode(actions, state)
            row.bootstraps = not row.episode.terminated
            ends = [*row.episode.action_start, len(row.episode.tokens)]
            give_fresh(row, [FRESH[int(row.episode.tokens[ends[turn] - 1])] for turn in row.states])
            written = len(row.episode.logprobs)
            if demonstrated:
                change(row, versions=np.full(written, -1, np.int32), logprobs=np.zeros(written, np.float32))
            else:
                change(row, logprobs=np.full(written, np.log(0.5), np.float32))
            rows.append(row)
    return rows


def _learned(rows: list[Row], steps: int = 200, **critic: Any) -> list[Table]:
    """Return the table of Q of each head after a critic phase."""
    settings = {"gamma": GAMMA, "tau": 0.5, "max_grad_norm": 1e6, "warmup_cycles": 0, "unit": "episode"}
    algorithm = table_algorithm(
        "archer",
        logits=_logits(POLICY),
        reference_logits=_logits(UNIFORM),
        demonstrations_in_replay=bool((rows[0].episode.versions < 0).all()),
        critic={**settings, "value": "fresh", **critic},
    )
    phase, engines = algorithm.phases(0)[0], algorithm.engines
    for step in range(steps):
        engines.critic.set_lr(0.15 * (1 - step / steps))
        algorithm.step(phase, [rows], sum(len(row.turns) for row in rows), 1)
    return [{key: float(head.value[pair(*key)].detach()) for key in PAIRS} for head in engines.critic.module.q]


EXACT = _fixed_point(_mean, _one_step)
EXACT_BEHAVIOUR = _fixed_point(lambda s, q: (q[s, LEFT] + q[s, RIGHT]) / 2, _one_step)
"""Q of the policy that wrote `_data`."""


@pytest.mark.parametrize("settings", [{"retrace": 1.0}, {"retrace": 0.6}, {"retrace": 0.0}, {}], ids=str)
def test_q_of_the_policy_is_learnt_from_another_policys_data(settings: dict[str, float]) -> None:
    for q in _learned(_data(), **settings):
        assert q == pytest.approx(EXACT, abs=0.02)


def test_uncorrected_traces_would_evaluate_the_datas_policy() -> None:
    """The lambda-return of the same data is biased, so that the corrections above are what removes the bias."""
    (q, _) = _learned(_data(), n_step=3, lambda_turn=1.0)
    assert max(abs(q[key] - EXACT[key]) for key in PAIRS) > 0.2


def test_actions_that_no_policy_wrote_have_the_clones_probability() -> None:
    written, demonstrated = (_learned(_data(demonstrated=d), steps=5, retrace=0.9) for d in (False, True))
    assert written == [pytest.approx(q) for q in demonstrated]


def test_a_tree_backup_needs_no_probability_of_who_acted() -> None:
    """It finds Q of the policy from demonstrations whose policy differs from the clone that stands for it."""
    for q in _learned(_data(demonstrated=True), retrace=1.0, unwritten="tree_backup"):
        assert q == pytest.approx(EXACT, abs=0.02)
    row = _data(1, demonstrated=True)[1]
    algorithm = table_algorithm(
        "archer",
        logits=_logits(POLICY),
        reference_logits=_logits(UNIFORM),
        demonstrations_in_replay=True,
        critic={"value": "fresh", "unit": "episode", "retrace": 1.0, "unwritten": "tree_backup"},
    )
    assert algorithm.engines.ratios([row]).tolist() == pytest.approx([POLICY[1]])


def test_ratios_are_kept_until_the_policy_changes() -> None:
    """After a change of the policy's table the ratio of going right is the new probability over the data's 1/2."""
    algorithm = table_algorithm(
        "archer", logits=_logits(POLICY), critic={"value": "fresh", "unit": "episode", "retrace": 1.0}
    )
    ratios, row = algorithm.engines.ratios, _data(1)[1]
    assert row.episode.tokens.tolist() == [1, RIGHT, 2]
    assert ratios([row]).tolist() == pytest.approx([POLICY[1] / 0.5])
    # A hidden state has two features that are 1, so that this doubles the odds.
    algorithm.policy.module.model.head.weight.data[RIGHT] += float(np.log(2.0)) / 2
    assert ratios([row]).tolist() == pytest.approx([POLICY[1] / 0.5])
    ratios.policy_changed()
    assert ratios([row]).tolist() == pytest.approx([2 * POLICY[1] / (2 * POLICY[1] + 1 - POLICY[1]) / 0.5])


@pytest.mark.parametrize("how", ["soft", "boltzmann"])
def test_backups_that_favour_better_actions_have_their_own_fixed_points(how: str) -> None:
    def value(s: int, q: Table) -> float:
        p, found = np.array([POLICY[s], 1 - POLICY[s]]), np.array([q[s, RIGHT], q[s, LEFT]])
        weight = p * np.exp(found / 0.5)
        return float(0.5 * np.log(weight.sum()) if how == "soft" else weight @ found / weight.sum())

    exact = _fixed_point(value, _one_step)
    assert max(abs(exact[key] - EXACT[key]) for key in PAIRS) > 0.1
    for q in _learned(_data(), steps=260, backup=how, backup_temperature=0.5):
        assert q == pytest.approx(exact, abs=0.02)


def test_a_histogram_learns_the_same_values() -> None:
    """A histogram needs a head of several outputs, so this test trains the outputs of each pair directly."""
    code = HistogramCode((-8.0, 8.0), bins=65, spread=0.75)
    outputs = torch.zeros(len(PAIRS), code.width, requires_grad=True)
    optimizer = torch.optim.Adam([outputs], lr=0.3)
    target = torch.tensor([EXACT[key] for key in PAIRS])
    for _ in range(300):
        optimizer.zero_grad()
        code.error(outputs, target).sum().backward()
        optimizer.step()
    torch.testing.assert_close(code.value(outputs), target, atol=0.02, rtol=0)


def test_the_histograms_gradient_is_that_of_a_cross_entropy() -> None:
    code = HistogramCode((-2.0, 2.0), bins=9, spread=0.75)
    outputs = torch.randn(3, 9, generator=torch.Generator().manual_seed(0), requires_grad=True)
    target = torch.tensor([-0.3, 1.9, 40.0])
    mass = code.mass(target)
    torch.testing.assert_close(mass.sum(-1), torch.ones(3))
    torch.testing.assert_close(mass[2], code.mass(torch.tensor(2.0)), msg="a target outside counts as the nearest end")
    assert float(code.mass(torch.tensor(0.3)) @ code.centres) == pytest.approx(0.3, abs=0.02)
    code.error(outputs, target).sum().backward()
    torch.testing.assert_close(outputs.grad, outputs.detach().softmax(-1) - mass)


def test_an_episode_outside_the_support_is_named() -> None:
    row = _episode((RIGHT, RIGHT, RIGHT), 1)
    require_support(ScalarCode(1.0), [row], GAMMA)
    require_support(HistogramCode((-3.0, 4.0), 51, 0.75), [row], GAMMA)
    with pytest.raises(LearnerError, match=r"episode 1-.* return to go of 4, outside .* support \[-3.06, 3.06\]; set"):
        require_support(HistogramCode((-3.0, 3.0), 51, 0.75), [row], GAMMA)


@pytest.mark.parametrize("value", ["heads", "fresh"])
def test_a_critic_that_diverges_ends_the_run_with_its_figures(value: str) -> None:
    rows = [row for row in _data() if row.episode.terminated]
    algorithm = table_algorithm("archer", critic={"gamma": GAMMA, "unit": "episode", "value": value})
    phase, samples = algorithm.phases(0)[0], sum(len(row.turns) for row in rows)
    algorithm.step(phase, [rows], samples, 1)
    for heads in (algorithm.engines.target.module.q, algorithm.engines.target.module.v):
        for head in heads:
            head.value.data[:] = 1e4
    with pytest.raises(LearnerError, match=r"diverges: the mean target of a step is \d{4}, and rewards of 2.* lower"):
        algorithm.step(phase, [rows], samples, 1)


def test_units_of_reward_change_the_scale_of_the_outputs_alone() -> None:
    outputs, target = torch.tensor([[0.5], [-1.0]]), torch.tensor([3.0, -10.0])
    torch.testing.assert_close(ScalarCode(10.0).value(outputs), torch.tensor([5.0, -10.0]))
    torch.testing.assert_close(ScalarCode(10.0).error(outputs, target), torch.tensor([0.04, 0.0]))


def test_backups_are_their_closed_forms() -> None:
    q = torch.tensor([[[1.0, 3.0, 77.0], [2.0, 2.0, 2.0]]])
    share = torch.tensor([[0.75, 0.25, 0.0], [0.2, 0.3, 0.5]])
    torch.testing.assert_close(backup(q, share, "mean", 0.5), torch.tensor([[1.5, 2.0]]))
    soft = 0.5 * np.log(0.75 * np.exp(2) + 0.25 * np.exp(6))
    torch.testing.assert_close(backup(q, share, "soft", 0.5), torch.tensor([[soft, 2.0]], dtype=torch.float32))
    odds = 0.25 * np.exp(6) / (0.75 * np.exp(2) + 0.25 * np.exp(6))
    torch.testing.assert_close(
        backup(q, share, "boltzmann", 0.5), torch.tensor([[1 + 2 * odds, 2.0]], dtype=torch.float32)
    )
    torch.testing.assert_close(backup(q, share, "boltzmann", 1e-3), torch.tensor([[3.0, 2.0]]))


def test_retrace_is_the_sum_of_corrected_temporal_differences() -> None:
    """The recursion equals equation 3 of the paper, which sums over all later turns."""
    torch.manual_seed(0)
    rows, turns, gamma = 3, 5, 0.9
    reward, q = torch.randn(rows, turns), torch.randn(2, rows, turns + 1)
    value, trace = torch.randn(2, rows, turns + 1), torch.rand(rows, turns + 1)
    trace[:, -1] = 0.0  # the episode ends there
    found = retrace_target(reward, gamma, trace[:, 1:], value[..., 1:], q[..., 1:])
    for start in range(turns):
        total, product = q[..., start].clone(), torch.ones(rows)
        for turn in range(start, turns):
            product = product * (trace[:, turn] if turn > start else 1.0)
            delta = reward[:, turn] + gamma * value[..., turn + 1] - q[..., turn]
            total += gamma ** (turn - start) * product * delta
        torch.testing.assert_close(found[..., start], total)


@pytest.mark.parametrize("shape", ["linear", "exponential"])
def test_proposals_that_are_all_equally_good_keep_their_shares(shape: str) -> None:
    share = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])
    weights = improvement_weights(
        torch.zeros(2, 3), share, shape=shape, temperature=0.4, least=0.02, most=5.0, dropped=0.05
    )
    torch.testing.assert_close(weights, share)


def test_the_best_proposal_is_never_dropped() -> None:
    share = torch.full((1, 64), 1 / 64)
    weights = improvement_weights(
        torch.zeros(1, 64), share, shape="linear", temperature=0.4, least=0.02, most=5.0, dropped=0.05
    )
    torch.testing.assert_close(weights, share)
