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


def q_loss(q: Tensor, target: Tensor) -> Tensor:
    """Return J_Q, summed over heads and samples: (Q_i(s, a) - target_i)^2. Both arguments are [heads, samples]."""
    return (q - target.detach()).square().sum()


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


def advantage(q: Tensor, v: Tensor) -> Tensor:
    """Return A(s, a) = min_i Q_i(s, a) - min_i V_i(s), [samples, actions], without gradient.

    `q` is [heads, samples, actions].
    """
    return (q.amin(0) - v.amin(0).unsqueeze(-1)).detach()


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


def cloning_loss(logprob: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the negative log-likelihood of action tokens, summed, each token times its `weight` if given."""
    return -(logprob if weight is None else weight * logprob).sum()


def value_loss(value: Tensor, target: Tensor) -> Tensor:
    """Return half the squared error of a token-level value or baseline, summed."""
    return 0.5 * (value - target.detach()).square().sum()


def behaviour_kl(logprob: Tensor, behaviour_logprob: Tensor) -> Tensor:
    """Return the sum over tokens of (r - 1) - log r with r = pi/behaviour, without gradient.

    It is an unbiased, non-negative estimate of KL(behaviour || pi) from tokens of the behaviour policy (Schulman,
    "Approximating KL divergence", k3).
    """
    log_ratio = (logprob - behaviour_logprob).detach()
    return (log_ratio.exp() - 1.0 - log_ratio).sum()


def reference_kl(logprob: Tensor, reference_logprob: Tensor) -> Tensor:
    """Return the sum over tokens of (r - 1) - log r with r = reference/pi.

    The value is the estimate k3 of KL(pi || reference) from tokens of pi (GRPO, Shao et al., 2024, equation 4). The
    gradient, with the tokens held constant, is that of KL(reference || pi), which has the same minimum.
    """
    log_ratio = reference_logprob.detach() - logprob
    return (log_ratio.exp() - 1.0 - log_ratio).sum()


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
