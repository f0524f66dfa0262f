"""The support of the critic's histogram, where the configuration leaves it to the environment."""

from __future__ import annotations

import math

import envs
from archer.config.models import RunConfig
from archer.errors import RunError
from learner.config import LearnerConfig


def with_support(config: RunConfig) -> LearnerConfig:
    """Return the learner's settings, with the environment's range of returns as `critic.support` if it is needed.

    The range includes 0, the return of an episode that has ended. Raises RunError if it is not finite.
    """
    critic = config.learner.critic
    if critic.loss != "hl_gauss" or critic.support is not None:
        return config.learner
    env = envs.make(config.env.id, **config.env.kwargs)
    try:
        low, high = env.spec.reward_range
    finally:
        env.close()
    low, high = min(low, 0.0), max(high, 0.0)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise RunError(
            f"environment {config.env.id!r} has returns from {low:g} to {high:g}, and `learner.critic.loss` hl_gauss "
            "needs a bounded support; set learner.critic.support to the least and greatest return that occur"
        )
    learner = config.learner.model_copy(deep=True)
    learner.critic.support = (low, high)
    return learner
