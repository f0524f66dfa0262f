"""Offline ArCHer: V by expectile regression, and an actor that clones the data's actions with weights.

It requests no fresh actions. V(s) is an expectile of Qbar over the data's own actions (IQL, Kostrikov et al., 2021),
and the actor clones these actions with weights exp(A / beta) (AWR, Peng et al., 2019).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from learner.algorithms.base import MicroBatches, StepResult
from learner.algorithms.phases import Draws, Phase
from learner.algorithms.setup import Setup
from learner.algorithms.utterance_critic import ActorCritic, OverActorCritic, critic_phases, token_advantages
from learner.engine.sums import Sums
from learner.losses import advantage_weights, cloning_loss, expectile_loss
from learner.passes.rows import Row


class ArcherOffline(OverActorCritic):
    """A critic phase and an actor phase in each cycle, both on the actions in replay."""

    def __init__(self, setup: Setup, engines: ActorCritic | None = None) -> None:
        super().__init__(setup, engines or ActorCritic(setup, actor_lr=setup.config.offline.lr))

    def phases(self, cycle: int) -> Sequence[Phase]:
        critic, offline = self.config.critic, self.config.offline
        return [
            *critic_phases(critic, cycle, fresh=0),
            Draws("actor", offline.steps_per_cycle, offline.batch, offline.unit),
        ]

    def step(self, phase: Phase, micro_batches: MicroBatches, samples: int, version: int) -> StepResult:
        if phase.name == "actor":
            return self._actor_step(micro_batches, samples)
        expectile = self.config.offline.expectile
        return self.engines.critic_step(
            micro_batches, samples, lambda v, bar: expectile_loss(v, bar["q_action"], expectile), "action"
        )

    def _actor_step(self, micro_batches: MicroBatches, samples: int) -> StepResult:
        config, device = self.config.offline, self.policy.device
        sums = Sums(device)

        def loss(rows: Sequence[Row]) -> Tensor:
            advantage = self.engines.advantage(rows, "action")
            layout = self.engines.policy_encoder.encode(rows, ("action",)).to(device)
            predictions = layout.predictions["action"]
            weight = advantage_weights(token_advantages(advantage, predictions), config.beta, config.max_weight)
            logprob = self.policy(layout, predictions)
            total = cloning_loss(logprob, weight)
            sums.add(loss=total, weight=weight.sum(), advantage=advantage.sum(), token_nll=-logprob.sum())
            sums.add(tokens=logprob.numel())
            return total

        norm = self.policy.step(micro_batches, loss, global_size=samples)
        return StepResult(sums.means("actor", samples, ("loss", "advantage")) | {"actor/norm": norm})
