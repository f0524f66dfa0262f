"""Token-level PPO with a value head (Schulman et al., 2017), the on-policy baseline of the ArCHer paper.

A step is a token; the reward of a turn arrives with its last token, and only the end of a turn discounts. A time limit
bootstraps from the value of the state that it cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from learner.algorithms.base import MicroBatches, Phase
from learner.algorithms.on_policy import OnPolicy, Sums
from learner.algorithms.setup import Setup
from learner.config import PpoConfig
from learner.layout import Layout, Points
from learner.losses import generalised_advantage, value_loss
from learner.policy import ValuePolicy
from learner.rows import Row


class Ppo(OnPolicy):
    """Clipped surrogate, generalised advantages, and a value head on the policy's own features."""

    section: PpoConfig
    extra_metrics = ("value_loss", "value")

    @classmethod
    def build(cls, setup: Setup) -> Self:
        section = setup.config.ppo
        policy = ValuePolicy(
            setup.policy_model(), setup.temperature, section.value_hidden_size, detached=section.value_detached
        )
        return cls(policy, setup, section)

    def phases(self, cycle: int) -> Sequence[Phase]:
        self.policy_weight = float(cycle >= self.section.warmup_cycles)
        return super().phases(cycle)

    def token_advantages(self, batches: Sequence[MicroBatches]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        self._targets: dict[str, Tensor] = {}
        for rows in (rows for micro_batches in batches for rows in micro_batches):
            layout = self.encoder.encode(rows, ("action", "next_state")).to(self.policy.device)
            with torch.no_grad():
                _, values, last = self.policy(
                    layout, layout.predictions["action"], values=True, points=_last_states(layout, rows)
                )
            tokens = [int((row.action_end - row.action_start).sum()) for row in rows]
            for row, value, end in zip(rows, values.cpu().split(tokens), last.cpu(), strict=True):
                advantage = self._advantage(row, value, end)
                found[row.episode_id] = advantage
                self._targets[row.episode_id] = advantage + value
        return found

    def _advantage(self, row: Row, value: Tensor, last_value: Tensor) -> Tensor:
        section = self.section
        ends = np.cumsum(row.action_end - row.action_start) - 1
        reward, discount, trace = torch.zeros_like(value), torch.ones_like(value), torch.ones_like(value)
        trace *= section.lambda_token
        reward[ends] = torch.from_numpy(row.reward)
        discount[ends], trace[ends] = section.gamma, section.lambda_turn
        return generalised_advantage(reward, value, last_value * (not row.terminated), discount, trace)

    def forward(self, layout: Layout, rows: Sequence[Row], sums: Sums) -> tuple[Tensor, Any]:
        logprob, values, _ = self.policy(layout, layout.predictions["action"], values=True)
        target = torch.cat([self._targets[row.episode_id] for row in rows]).to(values.device)
        loss = value_loss(values, target)
        sums["value_loss"] += loss.item()
        sums["value"] += values.sum().item()
        return logprob, self.section.value_weight * loss


def _last_states(layout: Layout, rows: Sequence[Row]) -> Points:
    """Where the state after the last turn of each row is read: [rows]."""
    last = torch.tensor([len(row.turns) for row in rows]).cumsum(0) - 1
    where = layout.points["next_state"]
    last = last.to(where.row.device)
    return Points(where.row[last], where.column[last])
