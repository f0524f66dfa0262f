"""GRPO over episodes: each return is compared with the mean of its group, which played one environment seed.

Shao et al., 2024. There is no critic: the undiscounted return relative to the group is the advantage of all the
episode's tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from learner.algorithm_config import GrpoConfig
from learner.algorithms.base import MicroBatches
from learner.algorithms.on_policy import OnPolicy, episodes_of, on_tokens
from learner.algorithms.setup import Setup
from learner.errors import LearnerError
from learner.losses import group_advantage


class Grpo(OnPolicy):
    """Group-relative policy optimisation. The episodes of a group may be on different ranks."""

    section: GrpoConfig

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup, setup.config.grpo)
        self.group = self.section.group

    def token_advantages(self, batches: Sequence[MicroBatches]) -> dict[str, Tensor]:
        own = episodes_of(batches)
        shared: list[list[tuple[str, int, float]]] = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(shared, [(e.episode_id, e.seed, float(e.reward.sum())) for e in own])
        ids, seeds, returns = zip(*(episode for part in shared for episode in part), strict=True)
        if len(set(seeds)) == len(seeds):
            raise LearnerError(
                f"grpo compares episodes of one environment seed, and each of these {len(seeds)} has a seed of its "
                "own: play them in groups (learner.grpo.group), or learn by reinforce"
            )
        advantages = group_advantage(torch.tensor(returns), torch.tensor(seeds), scale=self.section.scale)
        found = dict(zip(ids, advantages, strict=True))
        return {e.episode_id: on_tokens(e, found[e.episode_id].expand(e.turns)) for e in own}
