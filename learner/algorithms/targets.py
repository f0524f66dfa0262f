"""What targets read from rows: summed rewards, values of states from fresh actions, and the samples' weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from learner.losses import backup
from learner.passes.rows import Row, fresh_shares

if TYPE_CHECKING:
    from learner.critic_config import CriticConfig


def sample_weights(rows: Sequence[Row], device: torch.device) -> Tensor:
    """Return the weight of each sample, float32 [samples] in layout order; 1 for rows without weights."""
    weights = [row.weights if len(row.weights) else np.ones(len(row.turns), np.float32) for row in rows]
    return torch.from_numpy(np.concatenate(weights)).to(device)


def backup_at_states(config: CriticConfig, rows: Sequence[Row], q_fresh: Tensor) -> Tensor:
    """Return V at the states of `rows`, [heads, states], from Q of their fresh actions [heads, states, actions]."""
    share = torch.from_numpy(fresh_shares(rows)).to(q_fresh.device)
    return backup(q_fresh, share, config.backup, config.backup_temperature)


def n_step_returns(rows: Sequence[Row], n: int, gamma: float) -> np.ndarray:
    """Return summed rewards, discount and termination of n-step targets, float32 [3, samples] in layout order.

    Sums are cut at the end of the episode, or at the state from which the row bootstraps.
    """
    reward, discount, terminated = [], [], []
    for row in rows:
        episode = row.episode
        last = int(row.states[-1]) if row.bootstraps else episode.turns
        for turn in row.turns:
            end = min(int(turn) + n, last)
            steps = np.arange(end - turn)
            reward.append(float((episode.reward[turn:end] * gamma**steps).sum()))
            discount.append(gamma ** (end - int(turn)))
            terminated.append(float(episode.terminated and end == last))
    return np.array([reward, discount, terminated], dtype=np.float32)
