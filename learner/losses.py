"""The losses of ArCHer as pure functions on tensors (Zhou et al., ICML 2024, sections 3.2 to 3.4; DESIGN, section 2).

`heads` is 2, the double critic. Each loss is a **sum** over its samples: the caller divides by the size of the
global batch, so that micro-batches and ranks of unequal size add up to the same gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor


def td_target(reward: Tensor, discount: Tensor, terminated: Tensor, next_value: Tensor) -> Tensor:
    """Bootstrapped target of Q: r + discount (1 - terminated) Vbar_i(s').

    Args:
        reward: [samples], the (n-step, discounted) sum of rewards.
        discount: [samples], gamma to the power of the number of turns summed.
        terminated: [samples], 1 where the episode ended by itself within those turns. A time limit is not an end:
            the target bootstraps through it.
        next_value: [heads, samples], the target network's V at the state that follows.

    Returns:
        [heads, samples], without gradient.
    """
    return (reward + discount * (1.0 - terminated) * next_value).detach()


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


def advantage(q: Tensor, v: Tensor) -> Tensor:
    """A(s, a) = min_i Q_i(s, a) - min_i V_i(s).

    Args:
        q: [heads, samples, actions].
        v: [heads, samples].

    Returns:
        [samples, actions], without gradient.
    """
    return (q.amin(0) - v.amin(0).unsqueeze(-1)).detach()


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


def behaviour_kl(logprob: Tensor, behaviour_logprob: Tensor) -> Tensor:
    """Sum over tokens of (r - 1) - log r with r = pi/behaviour: an unbiased, non-negative estimate of
    KL(behaviour || pi) from tokens of the behaviour policy (Schulman, "Approximating KL divergence", k3)."""
    log_ratio = (logprob - behaviour_logprob).detach()
    return (log_ratio.exp() - 1.0 - log_ratio).sum()


def cloning_loss(logprob: Tensor) -> Tensor:
    """Behavioural cloning: negative log-likelihood of action tokens, summed. `logprob` is [tokens]."""
    return -logprob.sum()
