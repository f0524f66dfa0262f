"""REINFORCE: each token gets its turn's discounted return from there on, less the mean (Williams, 1992).

There is no critic to bootstrap from: an episode cut by a time limit counts as what it collected.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from learner.algorithms.base import MicroBatches
from learner.algorithms.on_policy import OnPolicy, episodes_of, on_tokens
from learner.algorithms.setup import Setup
from learner.config import ReinforceConfig
from learner.engine.engines import moments
from learner.losses import returns_to_go


class Reinforce(OnPolicy):
    """Monte-Carlo policy gradient with the cycle's mean as baseline."""

    section: ReinforceConfig

    @classmethod
    def build(cls, setup: Setup) -> Self:
        return cls(setup.policy(), setup, setup.config.reinforce)

    def token_advantages(self, batches: Sequence[MicroBatches]) -> dict[str, Tensor]:
        episodes = episodes_of(batches)
        gamma = self.section.gamma
        found = {episode.episode_id: returns_to_go(torch.from_numpy(episode.reward), gamma) for episode in episodes}
        baseline = moments(g.to(self.policy.device) for g in found.values())[0] if self.section.baseline else 0.0
        return {e.episode_id: on_tokens(e, found[e.episode_id] - baseline) for e in episodes}
