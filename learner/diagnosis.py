"""Figures that show how good a critic is, on episodes that it has not trained on.

Monte-Carlo returns: explained variance, correlation, bias, and V(s_0) beside the discounted return. Exact values, where
the environment can be solved: how well Q ranks the legal actions. The functions are called on every rank, and their
figures cover the episodes of all ranks.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from buffer.episodes.schema import Episode
from buffer.rollout_records import FreshActions
from learner.engine.sums import Sums
from learner.losses import returns_to_go
from learner.passes.rows import Row
from learner.protocols import ExactActions

_EXACT_TURNS = 8
"""Most turns of an episode at which Q is compared with Q*, so that a long episode costs little."""
_TIE = 1e-6
"""Actions whose Q* differ by less are equally good."""
_NO_SPREAD = 1e-12
"""Variances up to this are zero but for rounding."""


def return_figures(
    episodes: Sequence[Episode], values: Sequence[Tensor], last: Sequence[Tensor], gamma: float, device: torch.device
) -> dict[str, float]:
    """Return the figures of V against the discounted returns G of whole episodes.

    The return of an episode that a time limit ended is bootstrapped: V of its last state stands for what would follow.

    Args:
        values: V(s_t) of each episode, [turns].
        last: V of the state after the last turn of each episode, scalars.

    Returns:
        critic/explained_variance, 1 - var(G - V) / var(G) over all states; critic/correlation of V and G;
        critic/bias, the mean of V - G over all states; critic/value_start and critic/return_start, the means of
        V(s_0) and of G at s_0. The first two are missing if G, or for the correlation V, is the same everywhere.
    """
    sums = Sums(device)
    for episode, value, end in zip(episodes, values, last, strict=True):
        reward = torch.from_numpy(np.array(episode.reward, dtype=np.float64))
        v = value.detach().cpu().double()
        reward[-1] += gamma * (not episode.terminated) * end.detach().cpu().double()
        g = returns_to_go(reward, gamma)
        sums.add(states=len(v), episodes=1, v=v.sum(), g=g.sum(), vv=v.square().sum(), gg=g.square().sum())
        sums.add(vg=(v * g).sum(), v_start=v[0], g_start=g[0])
    total = sums.total()
    states, starts = total["states"], total["episodes"]
    mean_v, mean_g = total["v"] / states, total["g"] / states
    var_v, var_g = total["vv"] / states - mean_v**2, total["gg"] / states - mean_g**2
    covariance = total["vg"] / states - mean_v * mean_g
    found = {
        "critic/bias": mean_v - mean_g,
        "critic/value_start": total["v_start"] / starts,
        "critic/return_start": total["g_start"] / starts,
    }
    if var_g > _NO_SPREAD:
        found["critic/explained_variance"] = 1.0 - (var_g - 2.0 * covariance + var_v) / var_g
        if var_v > _NO_SPREAD:
            found["critic/correlation"] = covariance / (var_g * var_v) ** 0.5
    return found


def with_legal_actions(rows: Sequence[Row], exact: ExactActions) -> tuple[list[Row], list[np.ndarray]]:
    """Return rows whose fresh actions are the legal actions at some of their turns, and Q* of these actions.

    The turns are at most eight of each episode, evenly spaced. A pass needs equally many actions at each state, so
    that a state with fewer legal actions repeats its first one.

    Returns:
        The rows, and for each sample in their order Q* of its legal actions without the repeats, float64 [actions].
    """
    chosen, legal = [], []
    for row in rows:
        episode = row.episode
        turns = np.unique(np.linspace(0, episode.turns - 1, min(episode.turns, _EXACT_TURNS)).round()).astype(np.int32)
        chosen.append(turns)
        legal.append(exact(episode, turns))
    most = max(len(state) for states in legal for state in states)
    found = [
        Row(row.episode, turns, fresh=_as_fresh([_filled(list(state), most) for state in states]))
        for row, turns, states in zip(rows, chosen, legal, strict=True)
    ]
    return found, [np.array(list(state.values())) for states in legal for state in states]


def against_exact(found: Sequence[Tensor], true: Sequence[np.ndarray], device: torch.device) -> dict[str, float]:
    """Return the figures of Q against Q* over the legal actions of each state.

    Args:
        found: Q of each state's legal actions and repeats, [states, at least actions] of each pass.
        true: Q* of each state, as from `with_legal_actions`, for the states of all passes.

    Returns:
        critic/exact_correlation, the correlation of Q and Q*, each centred over the actions of its state;
        critic/exact_best, the share of states whose action of highest Q is optimal; critic/exact_regret, the mean of
        max Q* - Q* of that action. The correlation is missing if Q or Q* is the same for all actions everywhere.
    """
    sums = Sums(device)
    states = itertools.chain.from_iterable(q.detach().cpu().double().numpy() for q in found)
    for values, exact in zip(states, true, strict=True):
        q = values[: len(exact)]
        regret = float(exact.max() - exact[q.argmax()])
        a, b = q - q.mean(), exact - exact.mean()
        sums.add(states=1, best=float(regret < _TIE), regret=regret)
        sums.add(ab=float(a @ b), aa=float(a @ a), bb=float(b @ b))
    total = sums.total()
    means = {f"critic/exact_{name}": total[name] / total["states"] for name in ("best", "regret")}
    if min(total["aa"], total["bb"]) > _NO_SPREAD:
        means["critic/exact_correlation"] = total["ab"] / (total["aa"] * total["bb"]) ** 0.5
    return means


def _filled(actions: list[tuple[int, ...]], most: int) -> list[tuple[int, ...]]:
    return actions + actions[:1] * (most - len(actions))


def _as_fresh(states: Sequence[Sequence[tuple[int, ...]]]) -> FreshActions:
    """Return the actions of each state as the record that engines return. No policy wrote them: versions are -1."""
    flat = [action for actions in states for action in actions]
    offsets = np.cumsum([0, *map(len, flat)])
    return FreshActions(
        tokens=np.concatenate(flat).astype(np.int32),
        offsets=offsets,
        logprobs=np.zeros(offsets[-1], np.float32),
        versions=np.full(offsets[-1], -1, np.int32),
        counts=np.array([len(actions) for actions in states], np.int32),
    )
