"""The step of each method has the policy gradient of an enumeration of all utterances.

There is one state, and nine utterances of two tokens over a vocabulary of three. The policy's probabilities are
quarters, so that sixteen draws represent it exactly. The exact gradient is that of a sum over the nine.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from learner_cases import change
from table_cases import PAD, TOKENS, give_fresh, gradients_of, one_turn, pair, table_algorithm
from torch import Tensor

from learner import losses
from learner.passes.rows import Row

pytestmark = pytest.mark.usefixtures("one_rank")

STATE, WORDS = 4, (1, 2, 3)
UTTERANCES = list(itertools.product(WORDS, repeat=2))
CONTEXTS = [(PAD, STATE), *((STATE, word) for word in WORDS)]
"""The context of each token: the state, then the state with each first token."""
QUARTERS = {CONTEXTS[0]: (2, 1, 1), CONTEXTS[1]: (1, 2, 1), CONTEXTS[2]: (1, 1, 2), CONTEXTS[3]: (2, 1, 1)}
NEVER = -1e9


def _logits(quarters: dict[tuple[int, int], tuple[int, ...]], temperature: float = 1.0) -> dict[Any, list[float]]:
    """Return the logits of a policy with these probabilities at sampling temperature `temperature`."""
    found = {}
    for context, counts in quarters.items():
        row = [NEVER] * TOKENS
        for word, count in zip(WORDS, counts, strict=True):
            row[word] = temperature * float(np.log(count / 4))
        found[context] = row
    return found


LOGITS = _logits(QUARTERS)
COUNTS = [QUARTERS[CONTEXTS[0]][a - 1] * QUARTERS[STATE, a][b - 1] for a, b in UTTERANCES]
DRAWS = [list(u) for u, count in zip(UTTERANCES, COUNTS, strict=True) for _ in range(count)]
"""Sixteen utterances in proportion to the policy's probabilities."""


def _logprobs(theta: Tensor) -> Tensor:
    """Return the log-probability of each token of each utterance [9, 2], from logits [4 contexts, TOKENS]."""
    rows = theta.log_softmax(-1)
    return torch.stack([torch.stack((rows[0, a], rows[a, b])) for a, b in UTTERANCES])


def _theta(temperature: float = 1.0) -> Tensor:
    return torch.tensor([_logits(QUARTERS, temperature)[context] for context in CONTEXTS], requires_grad=True)


def _gradient(objective: Callable[[Tensor], Tensor], temperature: float = 1.0) -> Tensor:
    """Return the gradient of `objective` of the log-probabilities [9, 2] by the logits of the three words, [4, 3]."""
    theta = _theta(temperature)
    (found,) = torch.autograd.grad(objective(_logprobs(theta / temperature)), theta)
    return found[:, 1:4]


def _expectation(values: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the gradient of the mean of `values` [9] under the policy."""
    return _gradient(lambda logprob: (logprob.sum(-1).exp() * values).sum(), temperature)


def _read(found: dict[str, Tensor]) -> Tensor:
    """Return the negated gradient of the policy's table after a step, [4, 3]."""
    table = -found["model.head.weight"]
    return torch.stack([table[1:4, pair(*context)] for context in CONTEXTS])


def _archer(actor: dict[str, Any] | None = None, *, temperature: float = 1.0, **more: Any) -> tuple[Any, Tensor]:
    """Return ArCHer with random critic heads, and the paper's advantage of each utterance, [9]."""
    algorithm = table_algorithm(
        "archer",
        temperature=temperature,
        logits=_logits(QUARTERS, temperature),
        critic={"warmup_cycles": 0, **more.pop("critic", {})},
        actor={"fresh_per_state": len(DRAWS), "max_grad_norm": 1e6, **(actor or {})},
        **more,
    )
    critic = algorithm.engines.critic.module
    torch.manual_seed(5)
    for head in (*critic.q, *critic.v):
        head.value.data.normal_()
    with torch.no_grad():
        q = torch.stack([torch.stack([head.value[pair(a, b)] for a, b in UTTERANCES]) for head in critic.q])
        v = torch.stack([head.value[STATE] for head in critic.v])
    return algorithm, q.amin(0) - v.amin()


def _actor_step(algorithm: Any, rows: list[Row]) -> tuple[Tensor, dict[str, float], dict[str, Tensor]]:
    with gradients_of(algorithm.policy) as found:
        result = algorithm.step(algorithm.phases(0)[-1], [[row] for row in rows], len(rows), 1)
    return _read(found), result.metrics, found


def _state(actions: list[list[int]], **given: Any) -> Row:
    """Return the state with these fresh actions. The episode's own action has no effect."""
    return give_fresh(one_turn([STATE], [3, 3]), [actions], **given)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_archers_gradient_is_that_of_the_expected_advantage(temperature: float) -> None:
    algorithm, advantage = _archer(temperature=temperature)
    found, metrics, _ = _actor_step(algorithm, [_state(DRAWS)])
    torch.testing.assert_close(found, _expectation(advantage, temperature), atol=1e-5, rtol=1e-4)
    assert metrics["actor/advantage"] == pytest.approx(
        float(torch.tensor(COUNTS) / 16 @ advantage), abs=1e-5
    )  # the mean over the draws is the mean over the policy


def test_sampled_gradients_scatter_about_the_enumerated_one_as_they_should() -> None:
    """With 4,000 draws every entry is within five standard errors, which are computed by enumeration."""
    draws = 4000
    algorithm, advantage = _archer({"fresh_per_state": draws})
    chosen = np.random.default_rng(0).choice(9, size=draws, p=np.array(COUNTS) / 16)
    found, _, _ = _actor_step(algorithm, [_state([list(UTTERANCES[i]) for i in chosen])])
    mean, square = torch.zeros(4, 3), torch.zeros(4, 3)
    for index, count in enumerate(COUNTS):
        one = _gradient(lambda logprob, i=index: advantage[i] * logprob[i].sum())
        mean, square = mean + count / 16 * one, square + count / 16 * one.square()
    torch.testing.assert_close(mean, _expectation(advantage), atol=1e-5, rtol=1e-4)
    error = ((square - mean.square()) / draws).sqrt()
    score = (found - mean) / error
    assert score.abs().max() < 5
    assert 0.3 < score.square().mean() < 3


def test_the_lower_heads_bias_is_the_papers() -> None:
    """The gradient is that of min_i Q_i, not of the mean. Two noisy heads have the bias -sigma / sqrt(pi)."""
    algorithm, advantage = _archer()
    heads = algorithm.engines.critic.module.q
    mean = torch.stack([torch.stack([h.value[pair(a, b)] for h in heads]).mean() for a, b in UTTERANCES]).detach()
    found, _, _ = _actor_step(algorithm, [_state(DRAWS)])
    assert (found - _expectation(mean)).abs().max() > 0.05
    torch.testing.assert_close(found, _expectation(advantage), atol=1e-5, rtol=1e-4)

    torch.manual_seed(0)
    noise = 0.7 * torch.randn(2, 200_000, 1)
    low = losses.over_heads(3.0 + noise, "min", 0.0)
    read_low = losses.advantage(low, torch.full((200_000,), 1.0)).mean().item() - 2.0
    assert read_low == pytest.approx(-0.7 / np.sqrt(np.pi), abs=0.01)


def _merged() -> Row:
    """Return the state with each of the nine utterances once, and its share of the draws."""
    row = _state([list(utterance) for utterance in UTTERANCES])
    assert row.fresh is not None
    row.fresh.shares = np.array(COUNTS, dtype=np.float32) / 16
    return row


def _improvement(**actor: Any) -> tuple[Tensor, Tensor]:
    """Return the negated gradient of the improvement's step, and the critic's lower Q of each utterance, [9]."""
    settings = {"objective": "improvement", "dropped_share": 0.0, "weight_range": (0.0, 1e9), **actor}
    algorithm, _ = _archer(settings, critic={"value": "fresh", "unit": "episode"})
    q = torch.stack(
        [torch.stack([h.value[pair(a, b)] for a, b in UTTERANCES]) for h in algorithm.engines.critic.module.q]
    )
    found, _, _ = _actor_step(algorithm, [_merged()])
    return found, q.amin(0).detach()


def test_a_linear_improvement_climbs_as_the_policy_gradient_over_its_temperature() -> None:
    found, q = _improvement(weights="linear", temperature=100.0)
    torch.testing.assert_close(found * 100.0, _expectation(q), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("weights", ["linear", "exponential"])
def test_an_improvement_is_the_cross_entropy_from_the_improved_policy(weights: str) -> None:
    """The enumerated gradient of sum_k w_k log pi(a_k), with bounded and dropped weights."""
    bounds, dropped = (0.25, 2.0), 0.04
    found, q = _improvement(weights=weights, temperature=0.5, weight_range=bounds, dropped_share=dropped)
    share = torch.tensor(COUNTS) / 16
    scaled = (q - share @ q) / 0.5
    weight = share * (1 + scaled if weights == "linear" else scaled.exp()).clamp(*bounds)
    weight = weight / weight.sum()
    assert 0 < int((weight < dropped).sum()) < 8
    weight[weight < dropped] = 0.0
    weight = weight / weight.sum()
    torch.testing.assert_close(found, _gradient(lambda logprob: weight @ logprob.sum(-1)), atol=1e-5, rtol=1e-4)


def test_a_token_level_baseline_changes_nothing_in_the_mean() -> None:
    """The term of any b(s, a_<h) has expectation zero. Only the baseline has a gradient from its own loss."""
    plain, advantage = _archer()
    algorithm, _ = _archer({"token_baseline": True, "baseline_hidden_size": 8})
    without, _, _ = _actor_step(plain, [_state(DRAWS)])
    found, metrics, gradients = _actor_step(algorithm, [_state(DRAWS)])
    torch.testing.assert_close(found, _expectation(advantage), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found, without, atol=1e-5, rtol=1e-4)
    learns = [value for name, value in gradients.items() if name.startswith("value.")]
    assert learns
    assert max(float(value.abs().max()) for value in learns) > 1e-4
    assert metrics["actor/baseline_loss"] > 0
    # The gradient of a single draw does change.
    one, other = (_actor_step(a, [_state([DRAWS[0]] * len(DRAWS))])[0] for a in (plain, algorithm))
    assert (one - other).abs().max() > 1e-3


def test_the_clipped_surrogate_begins_as_the_plain_gradient() -> None:
    """At ratio 1 nothing is clipped; the behaviour log-probabilities are those of the policy."""
    algorithm, advantage = _archer({"clip": 0.2})
    row = _with_logprobs(_state(DRAWS), 1.0)
    found, metrics, _ = _actor_step(algorithm, [row])
    torch.testing.assert_close(found, _expectation(advantage), atol=1e-5, rtol=1e-4)
    assert metrics["actor/kl"] == pytest.approx(0.0, abs=1e-6)


def _with_logprobs(row: Row, temperature: float) -> Row:
    """Return the row with the policy's log-probabilities as those of its fresh actions."""
    table = _logprobs(_theta(temperature) / temperature).detach().numpy()
    assert row.fresh is not None
    row.fresh.logprobs = np.concatenate([table[UTTERANCES.index(tuple(a.tolist()))] for a in row.fresh_at(0)])
    return row


def test_normalising_scales_the_gradient_and_turns_it_nowhere() -> None:
    algorithm, advantage = _archer({"normalise_advantage": True})
    found, _, _ = _actor_step(algorithm, [_state(DRAWS)])
    weights = torch.tensor(COUNTS) / 16
    spread = (weights @ (advantage - weights @ advantage).square()).sqrt()
    torch.testing.assert_close(found, _expectation(advantage) / spread, atol=1e-4, rtol=1e-3)


def test_older_actions_count_by_their_truncated_ratio() -> None:
    """All nine utterances of an older uniform policy have the gradient E[w_h A grad log pi(a_h)] under that policy."""
    cap = 1.2
    algorithm, advantage = _archer({"importance_cap": cap, "fresh_per_state": 9})
    old = _state([list(u) for u in UTTERANCES], logprob=float(np.log(1 / 3)), version=0)
    found, _, _ = _actor_step(algorithm, [old])

    def objective(logprob: Tensor) -> Tensor:
        weight = (3 * logprob.detach().exp()).clamp(max=cap)
        return (weight * logprob * advantage.unsqueeze(-1)).sum() / 9

    torch.testing.assert_close(found, _gradient(objective), atol=1e-5, rtol=1e-4)
    # Ratios of tokens in place of a ratio of utterances bias the gradient.
    assert (found - _expectation(advantage)).abs().max() > 0.01


def test_the_kl_to_the_clone_pulls_as_its_formula_says() -> None:
    other = {CONTEXTS[0]: (1, 1, 2), CONTEXTS[1]: (1, 1, 2), CONTEXTS[2]: (2, 1, 1), CONTEXTS[3]: (1, 2, 1)}
    algorithm, advantage = _archer({"kl_to_clone": 0.3}, reference_logits=_logits(other))
    found, metrics, _ = _actor_step(algorithm, [_state(DRAWS)])
    clone = torch.tensor([_logits(other)[context] for context in CONTEXTS])
    reference = _logprobs(clone)
    divergence = _divergence(_theta().detach(), clone)
    # The metric is per token; an utterance has two.
    assert metrics["actor/kl_to_clone"] == pytest.approx(float(divergence) / 2, abs=1e-5)

    def penalised(logprob: Tensor) -> Tensor:
        ratio = (reference - logprob).exp() - 1 - (reference - logprob)
        weight = logprob.detach().sum(-1).exp()
        return (logprob.sum(-1).exp() * advantage).sum() - 0.3 * (weight.unsqueeze(-1) * ratio).sum()

    torch.testing.assert_close(found, _gradient(penalised), atol=1e-5, rtol=1e-4)


def _divergence(mine: Tensor, other: Tensor) -> Tensor:
    """Return KL(mine || other) of whole utterances, by enumeration."""
    p, q = _logprobs(mine).sum(-1), _logprobs(other).sum(-1)
    return (p.exp() * (p - q)).sum()


# The methods that learn from a cycle's own episodes


REWARDS = torch.tensor([0.5, -1.0, 2.0, 0.0, 1.0, -0.5, 1.5, -2.0, 0.25])


def _played(utterances: list[tuple[int, ...]]) -> list[Row]:
    """Return a one-turn episode of each utterance, all in one group, with the policy's log-probabilities."""
    table = _logprobs(_theta()).detach().numpy()
    rows = []
    for number, utterance in enumerate(utterances):
        index = UTTERANCES.index(tuple(utterance))
        row = one_turn([STATE], list(utterance), float(REWARDS[index]), name=f"e{number}")
        change(row, logprobs=table[index].copy())
        rows.append(row)
    return rows


def _on_policy(name: str, **section: Any) -> Any:
    settings = {"max_grad_norm": 1e6, "normalise_advantage": False, "epochs": 1, **section}
    return table_algorithm(name, logits=LOGITS, **{name: settings})  # type: ignore[arg-type]


def _swept(algorithm: Any, rows: list[Row]) -> Tensor:
    phase = algorithm.phases(0)[0]
    algorithm.begin([[rows]])
    with gradients_of(algorithm.policy) as found:
        algorithm.step(phase, [rows], len(rows), 1)
    return _read(found)


ALL = [tuple(draw) for draw in DRAWS]


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("reinforce", {"baseline": False}),
        ("reinforce", {"baseline": True}),  # over the policy's exact distribution the mean is the expectation
        ("grpo", {"scale": False, "group": 16, "clip": None}),
        ("grpo", {"scale": False, "group": 16, "clip": 0.2}),
        ("ppo", {"lambda_token": 1.0, "clip": 0.2}),
    ],
)
def test_on_policy_gradients_are_those_of_the_expected_return(name: str, section: dict[str, Any]) -> None:
    algorithm = _on_policy(name, **section)
    if name == "ppo":  # any value of the token's state is a baseline
        torch.manual_seed(1)
        algorithm.value.module.value.value.data.normal_()
    torch.testing.assert_close(_swept(algorithm, _played(ALL)), _expectation(REWARDS), atol=1e-5, rtol=1e-4)


def test_grpos_scale_divides_by_the_groups_deviation() -> None:
    found = _swept(_on_policy("grpo", scale=True, group=16), _played(ALL))
    weights = torch.tensor(COUNTS) / 16
    spread = (weights @ (REWARDS - weights @ REWARDS).square()).sqrt()
    torch.testing.assert_close(found, _expectation(REWARDS) / spread, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "section"), [("reinforce", {"baseline": True}), ("grpo", {"scale": False, "group": 2})]
)
def test_a_mean_that_holds_the_episode_itself_shortens_the_gradient(name: str, section: dict[str, Any]) -> None:
    """A baseline over n sampled episodes reduces the gradient by 1/n: here n = 2, over all 81 pairs."""
    algorithm = _on_policy(name, **section)
    mean = torch.zeros(4, 3)
    for one, other in itertools.product(range(9), repeat=2):
        weight = COUNTS[one] * COUNTS[other] / 256
        mean += weight * _swept(algorithm, _played([UTTERANCES[one], UTTERANCES[other]]))
    torch.testing.assert_close(mean, _expectation(REWARDS) / 2, atol=1e-5, rtol=1e-4)


def test_a_short_token_trace_lets_a_wrong_value_in() -> None:
    """With lambda_token below 1 PPO's gradient is unbiased with the exact value only."""
    algorithm = _on_policy("ppo", lambda_token=0.5)
    value = algorithm.value.module.value.value
    probability = torch.tensor(COUNTS) / 16
    for word in WORDS:
        mine = [i for i, utterance in enumerate(UTTERANCES) if utterance[0] == word]
        value.data[pair(STATE, word)] = probability[mine] @ REWARDS[mine] / probability[mine].sum()
    value.data[pair(PAD, STATE)] = probability @ REWARDS
    torch.testing.assert_close(_swept(algorithm, _played(ALL)), _expectation(REWARDS), atol=1e-5, rtol=1e-4)
    value.data[pair(STATE, 1)] += 1.0
    assert (_swept(algorithm, _played(ALL)) - _expectation(REWARDS)).abs().max() > 0.02


def test_weighted_regression_climbs_by_the_capped_weights() -> None:
    """The gradient of AWR weighs each token of an utterance by min(exp(A / beta), cap)."""
    beta, cap = 0.5, 3.0
    algorithm = table_algorithm(
        "archer_offline", logits=LOGITS, offline={"beta": beta, "max_weight": cap}, actor={"max_grad_norm": 1e6}
    )
    critic = algorithm.engines.critic.module
    torch.manual_seed(6)
    for head in (*critic.q, *critic.v):
        head.value.data.normal_()
    with torch.no_grad():
        q = torch.stack([torch.stack([head.value[pair(a, b)] for a, b in UTTERANCES]) for head in critic.q])
        advantage = q.amin(0) - torch.stack([head.value[STATE] for head in critic.v]).amin()
    weights = (advantage / beta).exp().clamp(max=cap)
    assert (weights == cap).any()
    assert (weights < 1).any()
    rows = [one_turn([STATE], list(u)) for u in UTTERANCES]
    with gradients_of(algorithm.policy) as found:
        algorithm.step(algorithm.phases(0)[1], [rows[:4], rows[4:]], 9, 1)
    expected = _gradient(lambda logprob: (weights.unsqueeze(-1) * logprob).sum() / 9)
    torch.testing.assert_close(_read(found), expected, atol=1e-5, rtol=1e-4)
