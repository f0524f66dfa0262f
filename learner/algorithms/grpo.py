"""GRPO over episodes: several play one environment seed, each is judged against their mean (Shao et al., 2024).

There is no critic: the episode's undiscounted return, against its group's, is the advantage of all its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor

from learner.algorithms.base import MicroBatches
from learner.algorithms.on_policy import OnPolicy, episodes_of, on_tokens
from learner.algorithms.setup import Setup
from learner.config import GrpoConfig
from learner.errors import LearnerError
from learner.losses import group_advantage


class Grpo(OnPolicy):
    """Group-relative policy optimisation; a group may lie on several ranks."""

    section: GrpoConfig

    @classmethod
    def build(cls, setup: Setup) -> Self:
        made = cls(setup.policy(), setup, setup.config.grpo)
        made.group = setup.config.grpo.group
        return made

    def token_advantages(self, batches: Sequence[MicroBatches]) -> dict[str, Tensor]:
        own = episodes_of(batches)
        mine = [(episode.episode_id, episode.seed, float(episode.reward.sum())) for episode in own]
        shared: list[list[tuple[str, int, float]]] = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(shared, mine)
        episodes = [episode for part in shared for episode in part]
        seeds = {seed for _, seed, _ in episodes}
        if len(seeds) == len(episodes):
            raise LearnerError(
                f"grpo compares episodes of one environment seed, and each of these {len(episodes)} has a seed of its "
                "own: play them in groups (learner.grpo.group), or learn by reinforce"
            )
        advantages = group_advantage(
            torch.tensor([ret for _, _, ret in episodes]),
            torch.tensor([seed for _, seed, _ in episodes]),
            scale=self.section.scale,
        )
        found = {episode_id: value for (episode_id, _, _), value in zip(episodes, advantages, strict=True)}
        return {e.episode_id: on_tokens(e, found[e.episode_id].expand(e.turns)) for e in own}
