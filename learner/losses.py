"""The losses of all algorithms, as pure functions on tensors.

ArCHer: Zhou et al., ICML 2024, sections 3.2 to 3.4. `heads` is the number of the critic's heads (the paper: 2). Q and
V are [heads, samples], Q of fresh actions is [heads, samples, actions]; arguments of token-level losses are [tokens].
Each loss is a **sum** over samples or tokens. The caller divides it by the size of the global batch, so that
micro-batches and ranks of different sizes add up to the same gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Critic


def td_target(reward: Tensor, discount: Tensor, terminated: Tensor, next_value: Tensor) -> Tensor:
    """Return the bootstrapped target of Q: r + discount (1 - terminated) Vbar_i(s').

    Args:
        reward: [samples], the (n-step, discounted) sum of rewards.
        discount: [samples], gamma to the power of the number of turns summed.
        terminated: [samples], 1 if the episode terminated within those turns. The target bootstraps through a time
            limit.
        next_value: [heads, samples], the target network's V at the next state. All arguments may have further axes.

    Returns:
        [heads, samples], without gradient.
    """
    return (reward + discount * (1.0 - terminated) * next_value).detach()


def lambda_target(reward: Tensor, discount: Tensor, terminated: Tensor, next_value: Tensor, trace: float) -> Tensor:
    """Return the truncated lambda-return of Q over turns (Sutton and Barto, 2018, equation 12.9).

    (1 - trace) sum_{i<n} trace^(i-1) G_i + trace^(n-1) G_n, where G_i is the i-step target. Trace 0 gives the one-step
    target, trace 1 the n-step target. After the end of an episode, G_i is the target of its last turn.

    Args:
        reward, discount, terminated: [samples, n], of each G_i, see `td_target`.
        next_value: [heads, samples, n], the target network's V after i turns.

    Returns:
        [heads, samples], without gradient.
    """
    targets = td_target(reward, discount, terminated, next_value)
    steps = targets.shape[-1]
    weight = (1.0 - trace) * trace ** torch.arange(steps, dtype=targets.dtype, device=targets.device)
    weight[-1] = trace ** (steps - 1)
    return targets @ weight


def backup(q_fresh: Tensor, share: Tensor, how: str, temperature: float) -> Tensor:
    """Return V(s) from Q of fresh actions, [heads, states].

    With p the shares: "mean" is sum_k p_k Q_k, the value of the policy. "soft" is T log sum_k p_k exp(Q_k / T), the
    value of the best policy under a penalty of T times the KL to the policy. "boltzmann" is the mean of Q under that
    best policy, p_k exp(Q_k / T) normalised.

    Args:
        q_fresh: [heads, states, actions].
        share: [states, actions], the share of each action among the draws of its state; 0 at pads.
        how: "mean", "soft" or "boltzmann".
        temperature: T, in units of reward.
    """
    if how == "mean":
        return (q_fresh * share).sum(-1)
    score = q_fresh / temperature + share.log()
    if how == "soft":
        return temperature * score.logsumexp(-1)
    return (score.softmax(-1) * q_fresh).sum(-1)


def retrace_target(reward: Tensor, gamma: float, trace: Tensor, next_value: Tensor, next_q: Tensor) -> Tensor:
    """Return the target of Q by Retrace over the turns of episodes (Munos et al., 2016, equation 3).

    y_t = r_t + gamma (V_{t+1} + c_{t+1} (y_{t+1} - Q_{t+1})), the recursive form of the sum over later turns. Its
    expectation over the data's actions has the fixed point Q^pi for any traces c, because the bracket of each later
    turn has the mean 0 there. Trace 0 gives the one-step target.

    Args:
        reward: [rows, turns]; 0 after an episode's last turn.
        trace: [rows, turns], c_{t+1} of the turn after each turn; 0 at an episode's last turn.
        next_value: [heads, rows, turns], Vbar of the state after each turn; 0 where the episode terminated.
        next_q: [heads, rows, turns], Qbar of the data's action at the state after each turn.

    Returns:
        [heads, rows, turns], without gradient.
    """
    targets = torch.zeros_like(next_value)
    later = torch.zeros_like(next_value[..., 0])
    for turn in reversed(range(reward.shape[1])):
        corrected = next_value[..., turn] + trace[:, turn] * (later - next_q[..., turn])
        later = targets[..., turn] = reward[:, turn] + gamma * corrected
    return targets.detach()


def v_loss(v: Tensor, q_fresh: Tensor) -> Tensor:
    """Return J_V, summed over heads and samples: (V_i(s) - mean_k Qbar_i(s, a_k))^2 with fresh actions a_k."""
    return (v - q_fresh.mean(-1).detach()).square().sum()


def best_of_loss(v: Tensor, q_fresh: Tensor) -> Tensor:
    """Return J_V of playing the best proposal, summed: (V_i(s) - max_k Qbar_i(s, a_k))^2 (CHAI)."""
    return (v - q_fresh.amax(-1).detach()).square().sum()


def expectile_loss(v: Tensor, q: Tensor, expectile: float) -> Tensor:
    """Return the expectile loss of V on Qbar of the data's actions, summed (IQL, Kostrikov et al., 2021, equation 5).

    |expectile - 1(u < 0)| u^2 with u = Qbar_i(s, a) - V_i(s). At 0.5 this is half the squared error. As the expectile
    approaches 1, V approaches the largest Q of the data's actions.
    """
    gap = q.detach() - v
    weight = torch.where(gap < 0, 1.0 - expectile, expectile)
    return (weight * gap.square()).sum()


def over_heads(values: Tensor, how: str, penalty: float) -> Tensor:
    """Return one value for the ensemble's values [heads, ...]: [...].

    `how` is "min", "mean", or "mean_minus_std": the mean minus `penalty` standard deviations over the heads.
    """
    if how == "min":
        return values.amin(0)
    if how == "mean":
        return values.mean(0)
    return values.mean(0) - penalty * values.std(0, correction=0)


def advantage(q: Tensor, v: Tensor) -> Tensor:
    """Return A(s, a) = Q(s, a) - V(s), [samples, actions], without gradient.

    The arguments are of the whole ensemble (`over_heads`; the paper: its minimum): `q` is [samples, actions], `v`
    [samples].
    """
    return (q - v.unsqueeze(-1)).detach()


# Actor


def policy_gradient_loss(
    logprob: Tensor,
    behaviour_logprob: Tensor,
    token_advantage: Tensor,
    on_policy: Tensor,
    *,
    importance_cap: float,
    clip: float | None,
) -> Tensor:
    """Return J_pi, summed over tokens: -w_h A(s, a) log pi(a_h | s, a_<h), the utterance's advantage on each token.

    Without `clip`, w_h is 1 for tokens of the current policy version. For older tokens it is the ratio of
    probabilities, truncated at `importance_cap`, without gradient. With `clip`, the loss of all tokens is the surrogate
    of PPO (Schulman et al., 2017, equation 7).

    Args:
        behaviour_logprob: under the policy and sampling that wrote the tokens.
        on_policy: bool, whether the current policy version wrote the token.
    """
    ratio = (logprob - behaviour_logprob).exp()
    if clip is not None:
        clipped = ratio.clamp(1.0 - clip, 1.0 + clip)
        return -torch.minimum(ratio * token_advantage, clipped * token_advantage).sum()
    weight = torch.where(on_policy, torch.ones_like(ratio), ratio.detach().clamp(max=importance_cap))
    return -(weight * token_advantage * logprob).sum()


def advantage_weights(token_advantage: Tensor, beta: float, cap: float) -> Tensor:
    """Return min(exp(A / beta), cap), the weights of advantage-weighted regression (Peng et al., 2019), no gradient."""
    return (token_advantage / beta).exp().clamp(max=cap).detach()


def improvement_weights(
    advantage: Tensor, share: Tensor, *, shape: str, temperature: float, least: float, most: float, dropped: float
) -> Tensor:
    """Return the improved policy over the fresh actions of each state, [states, actions], without gradient.

    It is p_k f(A_k / T), normalised over the actions, with p the shares of the actions. f is exp for "exponential" (the
    improvement under a KL penalty of T: MPO, Abdolmaleki et al., 2018) and 1 + x for "linear", its first order, which
    is a policy gradient's change of probability for a step of size 1 / T. f is bounded to [least, most].

    Args:
        advantage, share: [states, actions]; the share is 0 at pads.
        temperature: T, in units of reward.
        dropped: normalised weights below this become 0, because their actions are likelier noise than signal.
    """
    scaled = advantage / temperature
    factor = scaled.exp() if shape == "exponential" else 1.0 + scaled
    weight = share * factor.clamp(least, most)
    weight = weight / weight.sum(-1, keepdim=True)
    kept = torch.where(weight < torch.clamp(weight.amax(-1, keepdim=True), max=dropped), 0.0, weight)
    return (kept / kept.sum(-1, keepdim=True)).detach()


def cloning_loss(logprob: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the negative log-likelihood of action tokens, summed, each token times its `weight` if given."""
    return -(logprob if weight is None else weight * logprob).sum()


def value_loss(value: Tensor, target: Tensor) -> Tensor:
    """Return half the squared error of a token-level value or baseline, summed."""
    return 0.5 * (value - target.detach()).square().sum()


def behaviour_kl(logprob: Tensor, behaviour_logprob: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the sum over tokens of (r - 1) - log r with r = pi/behaviour, times `weight` if given, without gradient.

    It is an unbiased, non-negative estimate of KL(behaviour || pi) from tokens of the behaviour policy (Schulman,
    "Approximating KL divergence", k3).
    """
    log_ratio = (logprob - behaviour_logprob).detach()
    terms = log_ratio.exp() - 1.0 - log_ratio
    return (terms if weight is None else weight * terms).sum()


def reference_kl(logprob: Tensor, reference_logprob: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the sum over tokens of (r - 1) - log r with r = reference/pi, each times its `weight` if given.

    The value is the estimate k3 of KL(pi || reference) from tokens of pi (GRPO, Shao et al., 2024, equation 4). The
    gradient, with the tokens held constant, is that of KL(reference || pi), which has the same minimum.
    """
    log_ratio = reference_logprob.detach() - logprob
    terms = log_ratio.exp() - 1.0 - log_ratio
    return (terms if weight is None else weight * terms).sum()


# Returns and advantages of whole episodes


def returns_to_go(reward: Tensor, gamma: float) -> Tensor:
    """Return the discounted sum of the rewards from each turn on, [turns]. `reward` is [turns] of one episode."""
    nothing = torch.zeros_like(reward)
    return generalised_advantage(reward, nothing, nothing[0], nothing + gamma, nothing + 1.0)


def generalised_advantage(reward: Tensor, value: Tensor, last_value: Tensor, discount: Tensor, trace: Tensor) -> Tensor:
    """Return GAE over the tokens of one episode (Schulman et al., 2016, equation 16).

    delta_h = r_h + discount_h V_{h+1} - V_h;  A_h = delta_h + discount_h trace_h A_{h+1}

    Args:
        reward: [steps], the reward of a turn at its last token, 0 at other tokens.
        value: [steps], V of the state in which each token is written.
        last_value: scalar, V of the state after the last token; 0 if the episode terminated.
        discount: [steps], gamma at the last token of a turn, 1 at other tokens.
        trace: [steps], the trace of turns at the last token of a turn, the trace of tokens at other tokens.

    Returns:
        [steps], without gradient.
    """
    following = torch.cat((value[1:], last_value.reshape(1))).detach()
    delta = reward + discount * following - value.detach()
    found, total = [], torch.zeros((), dtype=delta.dtype)
    for d, decay in zip(delta.flip(0), (discount * trace).flip(0), strict=True):
        total = d + decay * total
        found.append(total)
    return torch.stack(found).flip(0)


def group_advantage(returns: Tensor, group: Tensor, *, scale: bool) -> Tensor:
    """Return each episode's return minus its group's mean (GRPO, Shao et al., 2024, section 4.1.2).

    The arguments and the result are [episodes]; `group` numbers the group of each episode. `scale` divides by the
    group's standard deviation (the paper), which favours groups with a small spread. If all returns of a group are
    equal, its advantages are 0.
    """
    found = torch.zeros_like(returns)
    for key in group.unique():
        mine = group == key
        centred = returns[mine] - returns[mine].mean()
        spread = centred.square().mean().sqrt()
        found[mine] = centred / spread.clamp(min=1e-6) if scale else centred
    return found
