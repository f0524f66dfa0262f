"""Token-level PPO with a value function (Schulman et al., 2017), the on-policy baseline of the ArCHer paper.

A step of the decision process is a token. The reward of a turn belongs to its last token, and only the end of a turn
is discounted. After a time limit the return is bootstrapped from the value of the last state. The value function has
its own engine, because with shared features and a shared gradient clipping its larger loss would dominate the policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from buffer.episodes.schema import Episode
from learner.algorithm_config import PpoConfig
from learner.algorithms.base import MicroBatches, StepResult
from learner.algorithms.on_policy import OnPolicy
from learner.algorithms.phases import Phase
from learner.algorithms.setup import Setup
from learner.diagnosis import return_figures
from learner.engine.engines import Engine
from learner.engine.sums import Sums
from learner.losses import generalised_advantage, value_loss
from learner.passes.layout import Layout, Points
from learner.passes.rows import Row
from learner.protocols import ExactActions


class Ppo(OnPolicy):
    """The clipped surrogate over generalised advantages. Each step trains policy and value with separate optimizers."""

    section: PpoConfig
    has_values = True

    def __init__(self, setup: Setup) -> None:
        section = setup.config.ppo
        policy, value = setup.policy(), setup.value_model()
        super().__init__(setup, section, policy)
        self.value = Engine(value, setup.config, lr=section.value_lr, max_grad_norm=section.max_grad_norm)
        self._targets: dict[str, Tensor] = {}
        self._starts: dict[str, Tensor] = {}  # V where each turn begins, [turns]
        self._warming_up = False

    def phases(self, cycle: int) -> Sequence[Phase]:
        self._warming_up = cycle < self.section.warmup_cycles
        (sweep,) = super().phases(cycle)
        return [replace(sweep, trains_policy=not self._warming_up)]

    def token_advantages(self, batches: Sequence[MicroBatches]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        self._targets, self._starts = {}, {}
        for rows in (rows for micro_batches in batches for rows in micro_batches):
            for row, value, end in zip(rows, *self._values(rows), strict=True):
                found[row.episode.episode_id] = advantage = self._advantage(row.episode, value, end)
                self._targets[row.episode.episode_id] = advantage + value
                self._starts[row.episode.episode_id] = value[_first_tokens(row.episode)]
        return found

    def turn_values(self, episode: Episode) -> dict[str, Tensor]:
        targets = self._targets[episode.episode_id][_first_tokens(episode)]
        return {"v": self._starts[episode.episode_id], "target": targets}

    def diagnose(self, micro_batches: MicroBatches, exact: ExactActions | None) -> dict[str, float]:
        episodes: list[Episode] = []
        states: list[Tensor] = []
        ends: list[Tensor] = []
        for rows in micro_batches:
            for row, value, end in zip(rows, *self._values(rows), strict=True):
                episodes.append(row.episode)
                states.append(value[_first_tokens(row.episode)])
                ends.append(end)
        return return_figures(episodes, states, ends, self.section.gamma, self.value.device)

    def _values(self, rows: Sequence[Row]) -> tuple[Sequence[Tensor], Tensor]:
        """Return V where each action token is written, [tokens] of each row, and V of each row's last state, [rows]."""
        layout = self.encoder.encode(rows, ("action", "next_state")).to(self.value.device)
        with torch.no_grad():
            values, last = self.value(layout, layout.predictions["action"], _last_states(layout, rows))
        tokens = [int((row.episode.action_end - row.episode.action_start).sum()) for row in rows]
        return values.cpu().split(tokens), last.cpu()

    def _advantage(self, episode: Episode, value: Tensor, last_value: Tensor) -> Tensor:
        section = self.section
        ends = np.cumsum(episode.action_end - episode.action_start) - 1
        reward, discount, trace = torch.zeros_like(value), torch.ones_like(value), torch.ones_like(value)
        trace *= section.lambda_token
        reward[ends] = torch.from_numpy(episode.reward)
        discount[ends], trace[ends] = section.gamma, section.lambda_turn
        return generalised_advantage(reward, value, last_value * (not episode.terminated), discount, trace)

    def step(self, phase: Phase, micro_batches: MicroBatches, samples: int, version: int) -> StepResult:
        metrics = self._value_step(micro_batches, samples)
        if self._warming_up:
            return StepResult(metrics)
        result = super().step(phase, micro_batches, samples, version)
        return StepResult(result.metrics | metrics, result.stop)

    def _value_step(self, micro_batches: MicroBatches, samples: int) -> dict[str, float]:
        sums = Sums(self.value.device)

        def loss(rows: Sequence[Row]) -> Tensor:
            layout = self.encoder.encode(rows, ("action",)).to(self.value.device)
            values, _ = self.value(layout, layout.predictions["action"])
            target = torch.cat([self._targets[row.episode.episode_id] for row in rows]).to(values.device)
            total = value_loss(values, target)
            sums.add(value_loss=total, value=values.sum(), tokens=values.numel())
            return total

        norm = self.value.step(micro_batches, loss, global_size=samples)
        return sums.means("actor", samples) | {"actor/value_norm": norm}

    def save(self, directory: Path) -> None:
        super().save(directory)
        self.value.save(str(directory), "value")

    def load(self, directory: Path) -> None:
        super().load(directory)
        self.value.load(str(directory), "value")


def _first_tokens(episode: Episode) -> Tensor:
    """Return the number of the first token of each turn among the action tokens, int64 [turns]."""
    lengths = episode.action_end - episode.action_start
    return torch.from_numpy(np.cumsum(lengths) - lengths).long()


def _last_states(layout: Layout, rows: Sequence[Row]) -> Points:
    """Return the points at which the state after the last turn of each row is read, [rows]."""
    last = torch.tensor([len(row.turns) for row in rows]).cumsum(0) - 1
    where = layout.points["next_state"]
    last = last.to(where.row.device)
    return Points(where.row[last], where.column[last])
