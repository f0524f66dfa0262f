"""The check that a critic has not diverged: its targets stay within what the rewards allow."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from learner.critic_config import CriticConfig
from learner.errors import LearnerError
from learner.passes.rows import Row

_TOLERATED = 30.0
"""The factor over the scale of returns at which a mean target counts as diverged; a sound critic stays below 3."""
_LONGEST_HORIZON = 200.0
"""Turns whose rewards a return sums up, where the discount sets no lower number."""


class Divergence:
    """Compares the mean target of each step with the scale of discounted returns, from the rewards seen so far."""

    def __init__(self, config: CriticConfig) -> None:
        self._horizon = min(1.0 / max(1.0 - config.gamma, 1e-9), _LONGEST_HORIZON)
        self._unit = config.value_unit
        self._reward = 0.0

    @staticmethod
    def reward_of(rows: Iterable[Row]) -> float:
        """Return the sum of |reward| over the sampled turns of `rows`."""
        return float(sum(np.abs(row.episode.reward[row.turns]).sum() for row in rows))

    def check(self, reward: float, target: float) -> None:
        """Raise LearnerError if the critic has diverged.

        Args:
            reward: mean |reward| of the step's turns, over all ranks.
            target: mean target of the step, over all ranks.
        """
        self._reward = max(self._reward, reward)
        scale = self._reward * self._horizon
        if scale and abs(target) > max(_TOLERATED * scale, 10.0 * self._unit):
            raise LearnerError(
                f"the critic diverges: the mean target of a step is {target:.4g}, and rewards of {self._reward:.3g} a "
                f"turn allow values of about {scale:.3g}. The last checkpoint is from before: lower learner.critic.lr "
                "or learner.critic.tau and continue with `archer train --resume`"
            )
