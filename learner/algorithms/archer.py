"""ArCHer: an off-policy critic over utterances and a policy gradient over tokens (Zhou et al., ICML 2024).

Invariant: the policy is constant in the critic phase, and the critic in the actor phase, so the fresh actions of a
cycle can be requested in advance.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from learner.algorithms.archer_offline import ArcherOffline
from learner.algorithms.base import Algorithm, MicroBatches, StepResult
from learner.algorithms.data_critic import data_values_loss, warmup_rate
from learner.algorithms.fresh_critic import fresh_values_loss
from learner.algorithms.improvement import improvement_step
from learner.algorithms.phases import Draws, Phase
from learner.algorithms.setup import Setup
from learner.algorithms.utterance_critic import WARMUP, OverActorCritic, critic_phases, token_advantages
from learner.engine.sums import Sums, moments
from learner.losses import behaviour_kl, policy_gradient_loss, reference_kl, v_loss, value_loss
from learner.passes.rows import Row, distinct_fresh, fresh_record


class Archer(OverActorCritic):
    """A critic phase and an actor phase in each cycle; in the first `warmup_cycles` the critic phase only."""

    _warmed = 0  # steps of the warm-up on data

    @classmethod
    def build(cls, setup: Setup) -> Algorithm:
        # Where V is computed from fresh actions, offline cycles are as online ones but for the episodes.
        by_iql = setup.offline_cycles and setup.config.critic.value == "heads"
        return OfflineToOnline(setup) if by_iql else cls(setup)

    def phases(self, cycle: int) -> Sequence[Phase]:
        critic, actor = self.config.critic, self.config.actor
        of_critic = critic_phases(critic, cycle, fresh=critic.fresh_per_state)
        if cycle < critic.warmup_cycles:
            return of_critic
        actor_draws = Draws(
            "actor",
            actor.steps_per_cycle,
            actor.batch,
            actor.unit,
            epochs=actor.epochs,
            fresh=actor.fresh_per_state,
            logprobs=True,
            distinct=actor.objective == "improvement",
            max_staleness=actor.max_staleness,
            recent_share=actor.recent_share,
            recent_versions=actor.recent_versions,
            recent_repeats=actor.recent_repeats,
        )
        return [*of_critic, actor_draws]

    def step(self, phase: Phase, micro_batches: MicroBatches, samples: int, version: int) -> StepResult:
        if phase.name == WARMUP:
            return self._warmup_step(micro_batches, samples)
        if phase.name == "critic":
            if self.config.critic.value == "fresh":
                return self.engines.step_by(partial(fresh_values_loss, self.engines), micro_batches, samples)
            return self.engines.critic_step(micro_batches, samples, lambda v, bar: v_loss(v, bar["q_fresh"]), "fresh")
        self.engines.ratios.policy_changed()
        if self.config.actor.objective == "improvement":
            return improvement_step(self.engines, micro_batches, samples)
        return self._gradient_step(micro_batches, samples, version)

    def _warmup_step(self, micro_batches: MicroBatches, samples: int) -> StepResult:
        """Take one step of the critic's warm-up on data. The last one leaves the rate at `critic.lr`."""
        config, critic = self.config.critic, self.engines.critic
        critic.set_lr(warmup_rate(config, self._warmed))
        result = self.engines.step_by(partial(data_values_loss, self.engines), micro_batches, samples)
        self._warmed += 1
        critic.set_lr(warmup_rate(config, self._warmed))
        metrics = {name.replace("critic", WARMUP, 1): value for name, value in result.metrics.items()}
        return StepResult(metrics, td_errors=result.td_errors)

    def _gradient_step(self, micro_batches: MicroBatches, samples: int, version: int) -> StepResult:
        """Take one step of J_pi on the fresh actions."""
        config, device = self.config.actor, self.policy.device
        advantages = [self.engines.advantage(rows, "fresh") for rows in micro_batches]
        mean, std = moments(advantages)
        if config.normalise_advantage:
            advantages = [(advantage - mean) * (1.0 / max(std, 1e-6)) for advantage in advantages]
        sums = Sums(device)

        def loss(rows: Sequence[Row], advantage: Tensor) -> Tensor:
            layout = self.engines.policy_encoder.encode(rows, ("fresh",), 0).to(device)
            predictions = layout.predictions["fresh"]
            behaviour, versions = (torch.from_numpy(a).to(device) for a in fresh_record(rows))
            weight = token_advantages(advantage, predictions)
            extra = torch.zeros((), device=device)
            if config.token_baseline:
                logprob, baseline = self.policy(layout, predictions, baseline=True)
                extra = value_loss(baseline, weight)
                sums.add(baseline_loss=extra)
                weight = weight - baseline.detach()
            else:
                logprob = self.policy(layout, predictions)
            total = policy_gradient_loss(
                logprob,
                behaviour,
                weight,
                versions == version,
                importance_cap=config.importance_cap,
                clip=config.clip,
            )
            if self.engines.reference is not None and config.kl_to_clone:
                kl = reference_kl(logprob, self.engines.reference(layout, predictions))
                sums.add(kl_to_clone=kl)
                extra = extra + config.kl_to_clone * kl
            sums.gaps(logprob, behaviour, versions == version)
            sums.add(kl=behaviour_kl(logprob, behaviour), entropy=-logprob.sum(), loss=total, tokens=logprob.numel())
            if config.fresh_per_state > 1:
                sums.add(distinct=distinct_fresh(rows) * config.fresh_per_state)
            return (total + extra) / config.fresh_per_state

        norm = self.policy.step(micro_batches, loss, advantages, global_size=samples)
        metrics = sums.means("actor", samples * config.fresh_per_state, ("loss", "distinct"))
        metrics |= {"actor/advantage": mean, "actor/advantage_std": std, "actor/norm": norm}
        stop = config.kl_stop is not None and metrics["actor/kl"] > config.kl_stop
        return StepResult(metrics, stop=stop, gaps=sums.gap_counts)


class OfflineToOnline(Archer):
    """Offline ArCHer in the first cycles, then ArCHer, with the same policy, critic and optimizers."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._offline = ArcherOffline(setup, self.engines)
        self._offline_cycles = setup.offline_cycles
        self._is_offline = True

    def phases(self, cycle: int) -> Sequence[Phase]:
        self._is_offline = cycle < self._offline_cycles
        self.policy.set_lr(self.config.offline.lr if self._is_offline else self.config.actor.lr)
        return self._offline.phases(cycle) if self._is_offline else super().phases(cycle)

    def step(self, phase: Phase, micro_batches: MicroBatches, samples: int, version: int) -> StepResult:
        if self._is_offline:
            return self._offline.step(phase, micro_batches, samples, version)
        return super().step(phase, micro_batches, samples, version)
