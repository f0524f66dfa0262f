"""The critic phase of each method converges to the known values of a small decision process.

There are three states in a row. `RIGHT` moves to the next state, and terminates the episode from the last one; `LEFT`
moves back or stays at the first. A time limit of two turns truncates episodes, so that values depend on bootstrapping.
A state of another turn, a pad, a fresh action at another state, or a limit treated as an end would change the values.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from learner_cases import make_episode
from table_cases import give_fresh, gradients_of, pair, table_algorithm

from learner.algorithms.utterance_critic import ActorCritic
from learner.passes.rows import Row

pytestmark = pytest.mark.usefixtures("one_rank")

STATES, LEFT, RIGHT, END = (1, 2, 3), 5, 6, 4
GAMMA = 0.8
REWARD = {(1, LEFT): -1.0, (1, RIGHT): -2.0, (2, LEFT): 0.5, (2, RIGHT): -1.0, (3, LEFT): -0.5, (3, RIGHT): 4.0}
POLICY = {1: 0.75, 2: 0.5, 3: 0.25}
"""Probability of `RIGHT`; four fresh actions hold it exactly."""
FRESH = {s: [[RIGHT]] * int(4 * p) + [[LEFT]] * int(4 * (1 - p)) for s, p in POLICY.items()}

Table = dict[tuple[int, int], float]
PAIRS = list(REWARD)


def _next(state: int, action: int) -> int:
    return (state + 1 if state < 3 else END) if action == RIGHT else max(state - 1, 1)


def _episode(actions: tuple[int, ...], first: int) -> Row:
    """Return the episode of these actions from `first`, which terminates or is truncated after the last action."""
    tokens, start, reward, state = [first], [], [], first
    for action in actions:
        start.append(len(tokens))
        reward.append(REWARD[state, action])
        state = _next(state, action)
        tokens += [action, state]
        if state == END:
            break
    ends = [begin + 1 for begin in start]
    episode = make_episode(f"{first}-{actions}", tokens, start, ends, reward, terminated=state == END)
    return Row(episode, np.arange(len(start), dtype=np.int32))


def _data(turns: int = 2, *, first_turn_only: bool = False) -> list[Row]:
    """Return every episode of `turns` turns once. With `first_turn_only`, both first actions are equally frequent."""
    rows = [_episode(actions, s) for s in STATES for actions in itertools.product((LEFT, RIGHT), repeat=turns)]
    unique = {tuple(row.episode.tokens): row for row in rows}
    rows = list(unique.values()) if not first_turn_only else rows
    for row in rows:
        if first_turn_only:
            row.turns = row.turns[:1]
        give_fresh(row, [FRESH[int(row.episode.tokens[row.episode.action_start[turn] - 1])] for turn in row.turns])
    return rows


def _fixed_point(value_of: Callable[[int, Table], float], q_of: Callable[[int, int, dict[int, float]], float]) -> Table:
    """Return the fixed point of V(s) = value_of(s, Q) and Q(s, a) = q_of(s, a, V), by iteration."""
    q: Table = dict.fromkeys(PAIRS, 0.0)
    for _ in range(400):
        v = {s: value_of(s, q) for s in STATES} | {END: 0.0}
        q = {(s, a): q_of(s, a, v) for s, a in PAIRS}
    return q


def _one_step(s: int, a: int, v: dict[int, float]) -> float:
    return REWARD[s, a] + GAMMA * v[_next(s, a)]


def _mean(s: int, q: Table) -> float:
    return POLICY[s] * q[s, RIGHT] + (1 - POLICY[s]) * q[s, LEFT]


def _best(s: int, q: Table) -> float:
    return max(q[s, LEFT], q[s, RIGHT])


def _learn(engines: ActorCritic, step: Callable[[], object], steps: int = 260) -> None:
    """Repeat a step on all data with a learning rate that falls to zero."""
    for index in range(steps):
        engines.critic.set_lr(0.15 * (1 - index / steps))
        step()


def _require(engines: ActorCritic, q: Table, v: dict[int, float], *, atol: float = 0.02) -> None:
    """Assert that both heads hold these values."""
    for head in range(len(engines.critic.module.q)):
        found_q = engines.critic.module.q[head].value.detach()
        found_v = engines.critic.module.v[head].value.detach()
        np.testing.assert_allclose([found_q[pair(*key)] for key in PAIRS], [q[key] for key in PAIRS], atol=atol)
        np.testing.assert_allclose([found_v[s] for s in STATES], [v[s] for s in STATES], atol=atol)


def _critic_phase(name: str, rows: list[Row], **critic: object) -> ActorCritic:
    settings = {"gamma": GAMMA, "tau": 0.5, "max_grad_norm": 1e6, "warmup_cycles": 0, "n_step": 1, **critic}
    algorithm = table_algorithm(name, critic=settings, offline={"expectile": 0.8})  # type: ignore[arg-type]
    phase = algorithm.phases(0)[0]
    samples = sum(len(row.turns) for row in rows)
    _learn(algorithm.engines, lambda: algorithm.step(phase, [rows], samples, 1))
    return algorithm.engines


def test_archer_finds_the_policys_values_from_another_policys_data() -> None:
    """One-step targets with fresh actions give Q^pi and V^pi from data of uniform actions."""
    exact = _fixed_point(_mean, _one_step)
    behaviour = _fixed_point(lambda s, q: (q[s, LEFT] + q[s, RIGHT]) / 2, _one_step)
    assert max(abs(exact[key] - behaviour[key]) for key in PAIRS) > 0.2, "else this shows nothing"
    _require(_critic_phase("archer", _data()), exact, {s: _mean(s, exact) for s in STATES})


def test_archer_with_the_better_action_of_each_state_finds_the_optimal_values() -> None:
    """If the policy follows the critic's advantage at once, the fixed point is Q*, V*."""
    rows = _data()
    algorithm = table_algorithm("archer", critic={"gamma": GAMMA, "tau": 0.5, "max_grad_norm": 1e6})
    q_table = algorithm.engines.critic.module.q[0].value

    def step() -> None:
        best = {s: LEFT if q_table[pair(s, LEFT)] > q_table[pair(s, RIGHT)] else RIGHT for s in STATES}
        for row in rows:
            give_fresh(row, [[[best[int(row.episode.tokens[at - 1])]]] for at in row.episode.action_start])
        algorithm.step(algorithm.phases(0)[0], [rows], sum(len(row.turns) for row in rows), 1)

    _learn(algorithm.engines, step)
    optimal = _fixed_point(_best, _one_step)
    _require(algorithm.engines, optimal, {s: _best(s, optimal) for s in STATES})


def test_chais_best_of_all_actions_finds_the_optimal_values() -> None:
    optimal = _fixed_point(_best, _one_step)
    _require(_critic_phase("chai", _data()), optimal, {s: _best(s, optimal) for s in STATES})


def test_iql_finds_the_expectile_of_the_datas_actions() -> None:
    """The expectile e of two values weighs the larger by e and the smaller by 1 - e, times their frequencies."""
    rows = _data()
    taken = [
        (int(row.episode.tokens[at - 1]), int(row.episode.tokens[at]))
        for row in rows
        for at in row.episode.action_start
    ]

    def expectile(s: int, q: Table) -> float:
        better, worse = sorted((LEFT, RIGHT), key=lambda a: -q[s, a])
        weights = 0.8 * taken.count((s, better)), 0.2 * taken.count((s, worse))
        return (weights[0] * q[s, better] + weights[1] * q[s, worse]) / sum(weights)

    exact = _fixed_point(expectile, _one_step)
    _require(_critic_phase("archer_offline", rows), exact, {s: expectile(s, exact) for s in STATES})


def _two_steps(s: int, a: int, v: dict[int, float]) -> float:
    """The target contains the data's second action, uniform over both actions, before it bootstraps."""
    following = _next(s, a)
    if following == END:
        return REWARD[s, a]
    return REWARD[s, a] + GAMMA * sum(_one_step(following, b, v) for b in (LEFT, RIGHT)) / 2


@pytest.mark.parametrize("trace", [None, 0.25])
def test_longer_targets_are_biased_to_the_datas_policy_by_just_what_they_should(trace: float | None) -> None:
    """An n-step target contains actions of the data's policy, a one-step target does not."""

    def target(s: int, a: int, v: dict[int, float]) -> float:
        return _two_steps(s, a, v) if trace is None else (1 - trace) * _one_step(s, a, v) + trace * _two_steps(s, a, v)

    biased = _fixed_point(_mean, target)
    unbiased = _fixed_point(_mean, _one_step)
    assert max(abs(biased[key] - unbiased[key]) for key in PAIRS) > 0.1
    rows = _data(3, first_turn_only=True)
    engines = _critic_phase("archer", rows, n_step=2, lambda_turn=trace)
    _require(engines, biased, {s: _mean(s, biased) for s in STATES})


def test_one_fresh_action_gives_v_the_gradient_of_all_in_the_mean() -> None:
    """The gradient of J_V with one fresh action is unbiased. Its value includes the variance of Q."""
    algorithm = table_algorithm("archer", critic={"gamma": GAMMA, "tau": 1e-9, "max_grad_norm": 1e6})
    engines = algorithm.engines
    torch.manual_seed(0)
    for module in (engines.critic.module, engines.target.module):
        for values in (*module.q, *module.v):
            values.value.data.normal_()

    def gradient_and_loss(action_of: dict[int, list[list[int]]]) -> tuple[torch.Tensor, float]:
        rows = [give_fresh(_episode((LEFT,), s), [action_of[s]]) for s in STATES]
        with gradients_of(engines.critic) as found:
            metrics = algorithm.step(algorithm.phases(0)[0], [rows], len(rows), 1).metrics
        return torch.stack([found[f"v.{head}.value"] for head in range(2)]), metrics["critic/v_loss"]

    exact, loss_of_all = gradient_and_loss(FRESH)
    mean, loss_of_one = torch.zeros_like(exact), 0.0
    for choice in itertools.product((LEFT, RIGHT), repeat=3):
        taken = dict(zip(STATES, choice, strict=True))
        weight = float(np.prod([POLICY[s] if a == RIGHT else 1 - POLICY[s] for s, a in taken.items()]))
        gradient, loss = gradient_and_loss({s: [[a]] for s, a in taken.items()})
        mean, loss_of_one = mean + weight * gradient, loss_of_one + weight * loss
    torch.testing.assert_close(mean, exact, atol=1e-5, rtol=1e-5)
    assert loss_of_one > loss_of_all + 0.05
