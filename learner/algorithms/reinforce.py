"""REINFORCE: each token's advantage is its turn's discounted return to go, minus the mean (Williams, 1992).

Without a critic there is no bootstrap: an episode that a time limit ends has the return that it collected.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from learner.algorithm_config import ReinforceConfig
from learner.algorithms.base import MicroBatches
from learner.algorithms.on_policy import OnPolicy, episodes_of, on_tokens
from learner.algorithms.setup import Setup
from learner.engine.sums import moments
from learner.losses import returns_to_go


class Reinforce(OnPolicy):
    """Monte-Carlo policy gradient with the mean over the cycle's turns as baseline."""

    section: ReinforceConfig

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup, setup.config.reinforce)

    def token_advantages(self, batches: Sequence[MicroBatches]) -> dict[str, Tensor]:
        episodes, gamma = episodes_of(batches), self.section.gamma
        found = {episode.episode_id: returns_to_go(torch.from_numpy(episode.reward), gamma) for episode in episodes}
        baseline = moments(g.to(self.policy.device) for g in found.values())[0] if self.section.baseline else 0.0
        return {e.episode_id: on_tokens(e, found[e.episode_id] - baseline) for e in episodes}
