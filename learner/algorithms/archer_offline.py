"""ArCHer from data alone, the paper's offline form: V by expectile regression, the actor by weighted cloning.

No action is ever asked of the policy: V(s) is an expectile of Qbar over the data's own actions (IQL, Kostrikov et al.,
2021), and the actor clones these actions with weights exp(A / beta) (AWR, Peng et al., 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from torch import Tensor

from learner.algorithms.archer import Archer, token_advantages
from learner.algorithms.base import Algorithm, MicroBatches, Phase, StepResult
from learner.algorithms.setup import Setup
from learner.algorithms.utterance_critic import ActorCritic, OverActorCritic, critic_phase
from learner.engine.engines import all_reduce_sum
from learner.losses import advantage, advantage_weights, cloning_loss, expectile_loss
from learner.passes.rows import Row


class ArcherOffline(OverActorCritic):
    """Critic phase, then actor phase, both on replay's own actions. New episodes, if any are played, are more data."""

    @classmethod
    def build(cls, setup: Setup) -> Self:
        return cls(ActorCritic.build(setup, actor_lr=setup.config.offline.lr))

    def phases(self, cycle: int) -> Sequence[Phase]:
        critic, offline = self.config.critic, self.config.offline
        return [
            critic_phase(critic, fresh=0),
            Phase("actor", offline.steps_per_cycle, offline.batch, offline.unit),
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
        sums = dict.fromkeys(("loss", "weight", "advantage", "nll", "tokens"), 0.0)

        def loss(rows: Sequence[Row]) -> Tensor:
            values = self.engines.values(rows, "action")
            utterance = advantage(values["q_action"].unsqueeze(-1), values["v_state"]).to(device)
            layout = self.engines.policy_encoder.encode(rows, ("action",)).to(device)
            predictions = layout.predictions["action"]
            weight = advantage_weights(token_advantages(utterance, predictions), config.beta, config.max_weight)
            logprob = self.policy(layout, predictions)
            total = cloning_loss(logprob, weight)
            sums["loss"] += total.item()
            sums["weight"] += weight.sum().item()
            sums["advantage"] += utterance.sum().item()
            sums["nll"] -= logprob.sum().item()
            sums["tokens"] += logprob.numel()
            return total

        norm = self.policy.step(micro_batches, loss, global_size=samples)
        sums = all_reduce_sum(sums, device)
        tokens = max(sums["tokens"], 1.0)
        return StepResult(
            {
                "actor/loss": sums["loss"] / samples,
                "actor/weight": sums["weight"] / tokens,
                "actor/advantage": sums["advantage"] / samples,
                "actor/token_nll": sums["nll"] / tokens,
                "actor/norm": norm,
            }
        )


class OfflineToOnline(OverActorCritic):
    """Offline ArCHer in the first cycles, then ArCHer, with the same policy, critic and optimizers."""

    def __init__(self, engines: ActorCritic, offline_cycles: int) -> None:
        super().__init__(engines)
        self._offline, self._online = ArcherOffline(engines), Archer(engines)
        self._offline_cycles = offline_cycles
        self._current: Algorithm = self._offline

    @classmethod
    def build(cls, setup: Setup) -> Self:
        return cls(ActorCritic.build(setup), setup.offline_cycles)

    def phases(self, cycle: int) -> Sequence[Phase]:
        offline = cycle < self._offline_cycles
        self._current = self._offline if offline else self._online
        self.policy.set_lr(self.config.offline.lr if offline else self.config.actor.lr)
        return self._current.phases(cycle)

    def step(self, phase: Phase, micro_batches: MicroBatches, samples: int, version: int) -> StepResult:
        return self._current.step(phase, micro_batches, samples, version)
