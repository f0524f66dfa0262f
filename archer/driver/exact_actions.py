"""Exact action values of the run's environment in the policy's tokens, for the learner's diagnoses of the critic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

import envs
from actors.config import RolloutConfig
from actors.rendering.context import episode_context
from actors.rendering.factory import make_renderer
from archer.config.models import RunConfig
from buffer.episodes.schema import Episode

if TYPE_CHECKING:
    from actors.rendering import Renderer


@dataclass
class ExactActionValues:
    """Solves the environment and renders its legal actions. Pickled for each learner rank, which loads the rest."""

    env_id: str
    env_kwargs: Mapping[str, Any]
    gamma: float
    model: str
    rollout: RolloutConfig

    def __call__(self, episode: Episode, turns: np.ndarray) -> list[dict[tuple[int, ...], float]]:
        """Return Q* of each legal action, by the tokens that the policy writes for it, at the states of `turns`."""
        context = episode_context(self.rollout, self._renderer.tools)
        played = [
            self._renderer.read_action(episode.tokens[start:end].tolist(), context).text
            for start, end in zip(episode.action_start, episode.action_end, strict=True)
        ]
        states = self._exact.along(episode.seed, played, turns.tolist())
        return [
            {tuple(self._renderer.encode_action(text, context)): value for text, value in state.items()}
            for state in states
        ]

    @cached_property
    def _exact(self) -> envs.ExactValues:
        exact = envs.exact_values(self.env_id, self.env_kwargs, self.gamma)
        assert exact is not None, f"{self.env_id} has no exact values"
        return exact

    @cached_property
    def _renderer(self) -> Renderer:
        from transformers import AutoTokenizer  # late: the driver does not need it

        return make_renderer(self.rollout, AutoTokenizer.from_pretrained(self.model))


def exact_actions(config: RunConfig, model: str) -> ExactActionValues | None:
    """Return the exact values of the run's environment; None if it has none, or if no critic is measured."""
    learner = config.learner
    if not config.algorithm_config.has_critic or not learner.diagnosis_episodes:
        return None
    exact = ExactActionValues(config.env.id, config.env.kwargs, learner.critic.gamma, model, rollout=config.rollout)
    return exact if envs.exact_values(config.env.id, config.env.kwargs, learner.critic.gamma) is not None else None
