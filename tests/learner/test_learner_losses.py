"""The losses have the values and gradients of closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from learner_cases import change, make_row

from learner.algorithms.targets import n_step_returns
from learner.losses import (
    advantage,
    advantage_weights,
    behaviour_kl,
    expectile_loss,
    generalised_advantage,
    group_advantage,
    lambda_target,
    over_heads,
    policy_gradient_loss,
    reference_kl,
    returns_to_go,
    td_target,
    v_loss,
)
from learner.models.value_codes import ScalarCode


def test_td_target_bootstraps_through_limits_and_stops_at_ends() -> None:
    target = td_target(
        reward=torch.tensor([-1.0, -1.0]),
        discount=torch.tensor([0.9, 0.9]),
        terminated=torch.tensor([0.0, 1.0]),
        next_value=torch.tensor([[-10.0, -10.0], [-5.0, -5.0]]),
    )
    torch.testing.assert_close(target, torch.tensor([[-10.0, -1.0], [-5.5, -1.0]]))


def test_tabular_critic_converges_to_the_known_values() -> None:
    """A chain of three states and two actions: "right" moves to the next state, "stay" does not; each costs -1.

    The policy moves right with probability p. Its V and Q solve a linear system, to whose solution TD on all
    transitions with exact fresh actions converges.
    """
    gamma, p, states = 0.9, 0.7, 3
    matrix, reward = np.eye(states), np.full(states, -1.0)
    for s in range(states):
        matrix[s, s] -= gamma * (1 - p)
        if s + 1 < states:
            matrix[s, s + 1] -= gamma * p
    exact_v = np.linalg.solve(matrix, reward)
    next_v = np.append(exact_v[1:], 0.0)
    exact_q = np.stack([-1 + gamma * exact_v, -1 + gamma * next_v], axis=1)  # stay, right

    q = torch.zeros(2, states, 2, requires_grad=True)
    v = torch.zeros(2, states, requires_grad=True)
    bar_q, bar_v = q.detach().clone(), v.detach().clone()
    following = torch.tensor([[0, 1], [1, 2], [2, 2]])
    ends = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    optimizer = torch.optim.SGD([q, v], lr=0.2)
    for _ in range(600):
        target = td_target(
            torch.full((states * 2,), -1.0),
            torch.full((states * 2,), gamma),
            ends.flatten(),
            bar_v[:, following.flatten()],
        )
        # Ten fresh actions per state in the exact proportion of the policy.
        fresh = bar_q[:, :, [1] * 7 + [0] * 3]
        optimizer.zero_grad()
        q_error = ScalarCode(1.0).error(q.flatten(1).unsqueeze(-1), target).sum()
        (q_error + v_loss(v, fresh)).backward()
        optimizer.step()
        with torch.no_grad():
            bar_q.lerp_(q, 0.5)
            bar_v.lerp_(v, 0.5)
    for head in range(2):
        np.testing.assert_allclose(v[head].detach(), exact_v, atol=1e-3)
        np.testing.assert_allclose(q[head].detach(), exact_q, atol=1e-3)


@pytest.mark.parametrize(
    ("how", "expected"), [("min", [0.75, 2.75]), ("mean", [1.125, 3.125]), ("mean_minus_std", [0.75, 2.75])]
)
def test_advantage_is_that_of_the_ensemble(how: str, expected: list[float]) -> None:
    """The standard deviation of two heads is half their distance, so that subtracting one of it gives the minimum."""
    q = over_heads(torch.tensor([[[1.0, 4.0]], [[2.0, 3.0]]]), how, 1.0)
    v = over_heads(torch.tensor([[0.5], [0.25]]), how, 1.0)
    torch.testing.assert_close(advantage(q, v), torch.tensor([expected]))


def _enumerate(theta: torch.Tensor) -> tuple[list[tuple[int, int]], torch.Tensor]:
    """Return all utterances of two tokens over three words, and their log-probabilities, from logits [4, 3]."""
    utterances = list(itertools.product(range(3), repeat=2))
    first = theta[0].log_softmax(-1)
    second = theta[1:].log_softmax(-1)
    return utterances, torch.stack([torch.stack([first[a], second[a, b]]) for a, b in utterances])


def test_policy_gradient_is_the_enumerated_one() -> None:
    """The loss has the gradient of the expected advantage over all nine utterances."""
    torch.manual_seed(0)
    theta = torch.randn(4, 3, requires_grad=True)
    value = torch.randn(9)
    _, logprob = _enumerate(theta)
    probability = logprob.sum(-1).exp()
    (exact,) = torch.autograd.grad((probability * value).sum(), theta)

    _, logprob = _enumerate(theta)
    weighted = probability.detach()
    loss = torch.zeros(())
    for utterance in range(9):
        loss = loss + weighted[utterance] * policy_gradient_loss(
            logprob[utterance],
            logprob[utterance].detach(),
            value[utterance].expand(2),
            torch.ones(2, dtype=torch.bool),
            importance_cap=1.0,
            clip=None,
        )
    (ours,) = torch.autograd.grad(-loss, theta)
    torch.testing.assert_close(ours, exact, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("clip", [None, 0.2])
def test_old_tokens_are_weighted_by_their_ratio(clip: float | None) -> None:
    logprob = torch.tensor([-1.0, -1.0, -3.0], requires_grad=True)
    behaviour = torch.tensor([-1.0, -2.0, -2.0])
    plus = torch.ones(3)
    loss = policy_gradient_loss(
        logprob, behaviour, plus, torch.tensor([True, False, False]), importance_cap=1.5, clip=clip
    )
    (gradient,) = torch.autograd.grad(loss, logprob)
    # Plain: weight 1, the cap, and the ratio e^-1. Clipped: a token with a ratio above 1.2 has no gradient.
    ratio = float(np.exp(-1.0))
    expected = [-1.0, -1.5, -ratio] if clip is None else [-1.0, 0.0, -ratio]
    torch.testing.assert_close(gradient, torch.tensor(expected))


def test_behaviour_kl_is_unbiased() -> None:
    torch.manual_seed(1)
    p, q = torch.randn(5).log_softmax(-1), torch.randn(5).log_softmax(-1)
    estimate = sum(p[i].exp() * behaviour_kl(q[i : i + 1], p[i : i + 1]) for i in range(5))
    torch.testing.assert_close(estimate, (p.exp() * (p - q)).sum())


@pytest.mark.parametrize("terminated", [True, False])
def test_n_step_returns(terminated: bool) -> None:
    row = make_row(0, turns=4, all_turns=True, terminated=terminated)
    change(row, reward=np.array([1.0, 2.0, 4.0, 8.0], dtype=np.float32))
    reward, discount, ended = n_step_returns([row], 3, 0.5)
    np.testing.assert_allclose(reward, [1 + 1 + 1, 2 + 2 + 2, 4 + 4, 8])
    np.testing.assert_allclose(discount, [0.125, 0.125, 0.25, 0.5])
    np.testing.assert_allclose(ended, [0, 1, 1, 1] if terminated else [0, 0, 0, 0])


def test_expectile_of_known_values() -> None:
    """The expectile of a sample minimises the loss."""
    q = torch.tensor([[0.0, 1.0, 5.0]])
    for expectile in (0.5, 0.7, 0.95):
        v = torch.zeros(1, 1, requires_grad=True)
        optimizer = torch.optim.SGD([v], lr=0.1)
        for _ in range(500):
            optimizer.zero_grad()
            expectile_loss(v.expand(1, 3), q, expectile).backward()
            optimizer.step()
        gap = (q - v).detach()
        torch.testing.assert_close(
            expectile * gap.clamp(min=0).sum(), (1 - expectile) * (-gap).clamp(min=0).sum(), atol=1e-4, rtol=1e-4
        )
        assert (expectile == 0.5) == bool(np.isclose(v.item(), 2.0, atol=1e-4))


def test_advantage_weights_are_capped() -> None:
    weights = advantage_weights(torch.tensor([0.0, 0.1, -0.1, 9.0]), beta=0.1, cap=20.0)
    torch.testing.assert_close(weights, torch.tensor([1.0, np.e, 1 / np.e, 20.0]))


def test_reference_kl_is_unbiased_and_so_is_its_gradient_in_expectation() -> None:
    torch.manual_seed(2)
    logits, q = torch.randn(5, requires_grad=True), torch.randn(5).log_softmax(-1)
    p = logits.log_softmax(-1)
    estimate = sum(p[i].exp().detach() * reference_kl(p[i : i + 1], q[i : i + 1]) for i in range(5))
    torch.testing.assert_close(estimate, (p.exp() * (p - q)).sum())
    # The pathwise gradient of k3 is that of KL(reference || pi) (Tang and Munos, 2025).
    (ours,) = torch.autograd.grad(estimate, logits)
    p = logits.log_softmax(-1)
    (exact,) = torch.autograd.grad((q.exp() * (q - p)).sum(), logits)
    torch.testing.assert_close(ours, exact)


@pytest.mark.parametrize("trace", [0.0, 0.6, 1.0])
def test_lambda_target_is_the_mixture_of_n_step_targets(trace: float) -> None:
    torch.manual_seed(6)
    samples, n = 4, 3
    reward, value = torch.randn(samples, n), torch.randn(2, samples, n)
    discount = (0.9 ** torch.arange(1, n + 1)).expand(samples, n)
    ended = torch.zeros(samples, n)
    ended[1, 1:] = 1.0  # this episode terminates with its second turn
    reward[1, 2] = reward[1, 1]
    found = lambda_target(reward, discount, ended, value, trace)
    each = [td_target(reward[:, i], discount[:, i], ended[:, i], value[:, :, i]) for i in range(n)]
    expected = (1 - trace) * (each[0] + trace * each[1]) + trace**2 * each[2]
    torch.testing.assert_close(found, expected)
    if trace == 0.0:
        torch.testing.assert_close(found, each[0])
    # After the end of an episode its targets do not depend on V.
    torch.testing.assert_close(each[1][:, 1], each[2][:, 1])


def test_lambda_targets_find_the_known_values_of_a_chain() -> None:
    """In a chain of five states with reward -1, V is the discounted number of remaining steps for every trace."""
    gamma, states, n = 0.9, 5, 3
    exact = torch.tensor([-(1 - gamma ** (states - s)) / (1 - gamma) for s in range(states)])
    for trace in (0.0, 0.5, 1.0):
        v = torch.zeros(states)
        for _ in range(60):
            reward = torch.tensor(
                [[-(1 - gamma ** min(i, states - s)) / (1 - gamma) for i in range(1, n + 1)] for s in range(states)]
            )
            discount = torch.tensor([[gamma ** min(i, states - s) for i in range(1, n + 1)] for s in range(states)])
            ended = torch.tensor([[float(s + i >= states) for i in range(1, n + 1)] for s in range(states)])
            following = torch.stack(
                [v[torch.clamp(torch.arange(states) + i, max=states - 1)] for i in range(1, n + 1)], -1
            )
            v = lambda_target(reward, discount, ended, following.unsqueeze(0), trace)[0]
        torch.testing.assert_close(v, exact, atol=1e-4, rtol=1e-4)


def test_returns_to_go() -> None:
    torch.testing.assert_close(returns_to_go(torch.tensor([1.0, 2.0, 4.0]), 0.5), torch.tensor([3.0, 4.0, 4.0]))


@pytest.mark.parametrize("trace", [0.0, 0.5, 1.0])
def test_generalised_advantage_is_the_weighted_sum_of_td_errors(trace: float) -> None:
    torch.manual_seed(3)
    steps, gamma = 6, 0.9
    reward, value = torch.randn(steps), torch.randn(steps)
    last = torch.tensor(0.7)
    discount = torch.tensor([1.0, 1.0, gamma, 1.0, gamma, gamma])
    found = generalised_advantage(reward, value, last, discount, torch.full((steps,), trace))
    following = torch.cat((value[1:], last.reshape(1)))
    delta = reward + discount * following - value
    for h in range(steps):
        expected, decay = 0.0, 1.0
        for k in range(h, steps):
            expected += decay * float(delta[k])
            decay *= float(discount[k]) * trace
        assert found[h].item() == pytest.approx(expected, abs=1e-5)


def test_group_advantage_knows_nothing_of_other_groups() -> None:
    returns = torch.tensor([1.0, 3.0, 100.0, 100.0, -1.0, 5.0])
    group = torch.tensor([7, 7, 2, 2, 3, 3])
    torch.testing.assert_close(group_advantage(returns, group, scale=False), torch.tensor([-1.0, 1, 0, 0, -3, 3]))
    torch.testing.assert_close(group_advantage(returns, group, scale=True), torch.tensor([-1.0, 1, 0, 0, -1, 1]))


def test_archers_utterance_gradient_is_biased_under_a_fixed_critic_of_another_policy() -> None:
    """With Q of an older policy the gradient is biased, which the paper accepts.

    With one turn Q is the reward, and there is no bias. With two turns Q(s, a) = r + gamma V(s'), and V(s') of another
    policy shifts the gradient by the enumerated difference.
    """
    torch.manual_seed(4)
    theta = torch.randn(4, 3, requires_grad=True)
    reward, now, old = torch.randn(9), torch.randn(9), torch.randn(9)

    def gradient(value: torch.Tensor) -> torch.Tensor:
        _, logprob = _enumerate(theta)
        (found,) = torch.autograd.grad((logprob.sum(-1).exp() * value).sum(), theta)
        return found

    exact, ours = gradient(reward + 0.9 * now), gradient(reward + 0.9 * old)
    torch.testing.assert_close(ours - exact, gradient(0.9 * (old - now)), atol=1e-6, rtol=1e-5)
    assert (ours - exact).abs().max() > 1e-2
