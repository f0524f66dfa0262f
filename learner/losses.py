"""The losses of the methods as pure functions on tensors.

ArCHer: Zhou et al., ICML 2024, sections 3.2 to 3.4; DESIGN, section 2. `heads` are the critic's, two in the paper.
Each loss is a **sum** over its samples or tokens: the caller divides by the size of the global batch, so that
micro-batches and ranks of unequal size add up to the same gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Critic


def td_target(reward: Tensor, discount: Tensor, terminated: Tensor, next_value: Tensor) -> Tensor:
    """Bootstrapped target of Q: r + discount (1 - terminated) Vbar_i(s').

    Args:
        reward: [samples], the (n-step, discounted) sum of rewards.
        discount: [samples], gamma to the power of the number of turns summed.
        terminated: [samples], 1 where the episode ended by itself within those turns. A time limit is not an end:
            the target bootstraps through it.
        next_value: [heads, samples], the target network's V at the state that follows. More axes may follow in all.

    Returns:
        [heads, samples], without gradient.
    """
    return (reward + discount * (1.0 - terminated) * next_value).detach()


def lambda_target(reward: Tensor, discount: Tensor, terminated: Tensor, next_value: Tensor, trace: float) -> Tensor:
    """Truncated lambda-return of Q over turns (Sutton and Barto, 2018, equation 12.9).

    (1 - trace) sum_{i<n} trace^(i-1) G_i + trace^(n-1) G_n, where G_i is the i-step target; trace 0 is one-step, 1 is
    n-step. Where an episode ends within the n turns, the steps beyond it have the target of the last one.

    Args:
        reward, discount, terminated: [samples, n], of each G_i as in `td_target`.
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
    """J_Q, summed over heads and samples: (Q_i(s, a) - target_i)^2. Both arguments [heads, samples]."""
    return (q - target.detach()).square().sum()


def v_loss(v: Tensor, q_fresh: Tensor) -> Tensor:
    """J_V, summed over heads and samples: (V_i(s) - mean_k Qbar_i(s, a_k))^2 with fresh actions a_k.

    Args:
        v: [heads, samples].
        q_fresh: [heads, samples, actions], the target network's Q of each fresh action.
    """
    return (v - q_fresh.mean(-1).detach()).square().sum()


def best_of_loss(v: Tensor, q_fresh: Tensor) -> Tensor:
    """J_V of a player that takes the best of its proposals, summed: (V_i(s) - max_k Qbar_i(s, a_k))^2 (CHAI).

    Args:
        v: [heads, samples].
        q_fresh: [heads, samples, actions], the target network's Q of each proposal.
    """
    return (v - q_fresh.amax(-1).detach()).square().sum()


def expectile_loss(v: Tensor, q: Tensor, expectile: float) -> Tensor:
    """V by expectile regression on Qbar of the data's own actions, summed (IQL, Kostrikov et al., 2021, equation 5).

    |expectile - 1(u < 0)| u^2 with u = Qbar_i(s, a) - V_i(s). At 0.5 it is half the squared error; towards 1, V
    tends to the largest Q that the data's actions support.

    Args:
        v, q: [heads, samples]; q is the target network's.
    """
    gap = q.detach() - v
    weight = torch.where(gap < 0, 1.0 - expectile, expectile)
    return (weight * gap.square()).sum()


def advantage(q: Tensor, v: Tensor) -> Tensor:
    """A(s, a) = min_i Q_i(s, a) - min_i V_i(s).

    Args:
        q: [heads, samples, actions].
        v: [heads, samples].

    Returns:
        [samples, actions], without gradient.
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
    """J_pi, summed over tokens: -w_h A(s, a) log pi(a_h | s, a_<h), the utterance's advantage on each token.

    Without `clip`, w_h is 1 for tokens that the current policy version wrote and the ratio of probabilities,
    truncated at `importance_cap` and without gradient, for older ones. With `clip`, the surrogate of PPO
    (Schulman et al., 2017, equation 7) takes its place for all tokens.

    Args:
        logprob: [tokens], under the policy that learns.
        behaviour_logprob: [tokens], under the policy that wrote them, sampling included.
        token_advantage: [tokens].
        on_policy: [tokens], bool, whether the current version wrote the token.
    """
    ratio = (logprob - behaviour_logprob).exp()
    if clip is not None:
        clipped = ratio.clamp(1.0 - clip, 1.0 + clip)
        return -torch.minimum(ratio * token_advantage, clipped * token_advantage).sum()
    weight = torch.where(on_policy, torch.ones_like(ratio), ratio.detach().clamp(max=importance_cap))
    return -(weight * token_advantage * logprob).sum()


def advantage_weights(token_advantage: Tensor, beta: float, cap: float) -> Tensor:
    """Weights of advantage-weighted regression: min(exp(A / beta), cap) (Peng et al., 2019), without gradient."""
    return (token_advantage / beta).exp().clamp(max=cap).detach()


def cloning_loss(logprob: Tensor, weight: Tensor | None = None) -> Tensor:
    """Behavioural cloning: negative log-likelihood of action tokens, summed.

    Args:
        logprob: [tokens].
        weight: [tokens], or None for 1 everywhere.
    """
    return -(logprob if weight is None else weight * logprob).sum()


def value_loss(value: Tensor, target: Tensor) -> Tensor:
    """Half the squared error of a token-level value or baseline, summed. Both [tokens]."""
    return 0.5 * (value - target.detach()).square().sum()


def behaviour_kl(logprob: Tensor, behaviour_logprob: Tensor) -> Tensor:
    """Sum over tokens of (r - 1) - log r with r = pi/behaviour: an unbiased, non-negative estimate of
    KL(behaviour || pi) from tokens of the behaviour policy (Schulman, "Approximating KL divergence", k3)."""
    log_ratio = (logprob - behaviour_logprob).detach()
    return (log_ratio.exp() - 1.0 - log_ratio).sum()


def reference_kl(logprob: Tensor, reference_logprob: Tensor) -> Tensor:
    """Sum over tokens of (r - 1) - log r with r = reference/pi: k3's estimate of KL(pi || reference) from tokens of pi
    (as in GRPO, Shao et al., 2024, equation 4). Both [tokens].

    Its value estimates that divergence; its gradient, taken along the tokens as they are, is that of
    KL(reference || pi), which has the same minimum.
    """
    log_ratio = reference_logprob.detach() - logprob
    return (log_ratio.exp() - 1.0 - log_ratio).sum()


# Returns and advantages of whole episodes


def returns_to_go(reward: Tensor, gamma: float) -> Tensor:
    """Discounted sum of the rewards from each turn on. `reward` is [turns] of one episode, as is the result."""
    found, total = [], torch.zeros((), dtype=reward.dtype)
    for value in reward.flip(0):
        total = value + gamma * total
        found.append(total)
    return torch.stack(found).flip(0)


def generalised_advantage(reward: Tensor, value: Tensor, last_value: Tensor, discount: Tensor, trace: Tensor) -> Tensor:
    """GAE over the steps of one episode (Schulman et al., 2016, equation 16), with step-wise discount and trace.

    delta_h = r_h + discount_h V_{h+1} - V_h;  A_h = delta_h + discount_h trace_h A_{h+1}

    Args:
        reward: [steps], each token's, zero but at the end of a turn.
        value: [steps], V at the state in which each token is written.
        last_value: scalar, V of the state after the last step: 0 where the episode terminated.
        discount: [steps], of what follows the token: gamma where a turn ends, 1 within one.
        trace: [steps], lambda likewise.

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
    """Each episode's return against its group's mean (GRPO, Shao et al., 2024, section 4.1.2).

    Args:
        returns: [episodes].
        group: long [episodes], which group each belongs to.
        scale: divide by the group's standard deviation too (the paper; without it, no bias towards groups of little
            spread). A group whose returns are all equal teaches nothing: its advantages are 0.

    Returns:
        [episodes].
    """
    found = torch.zeros_like(returns)
    for key in group.unique():
        mine = group == key
        centred = returns[mine] - returns[mine].mean()
        spread = centred.square().mean().sqrt()
        found[mine] = centred / spread.clamp(min=1e-6) if scale else centred
    return found
