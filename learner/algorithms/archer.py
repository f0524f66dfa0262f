"""ArCHer: an off-policy critic over utterances feeds a policy gradient over tokens (Zhou et al., ICML 2024).

Invariant: the policy is frozen while the critic learns and the critic while the actor learns, so a cycle's fresh
actions of each phase can be asked for ahead of need.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from learner.algorithms.base import MicroBatches, Phase, StepResult
from learner.algorithms.utterance_critic import OverActorCritic, critic_phase
from learner.engine.engines import all_reduce_sum, moments
from learner.losses import advantage, behaviour_kl, policy_gradient_loss, reference_kl, v_loss, value_loss
from learner.passes.layout import Predictions
from learner.passes.rows import Row, fresh_record


class Archer(OverActorCritic):
    """Critic phase, then actor phase, in each cycle; only the critic's in the first `warmup_cycles`."""

    def phases(self, cycle: int) -> Sequence[Phase]:
        critic, actor = self.config.critic, self.config.actor
        phases = [critic_phase(critic, fresh=critic.fresh_per_state)]
        if cycle >= critic.warmup_cycles:
            phases.append(
                Phase(
                    "actor",
                    actor.steps_per_cycle,
                    actor.batch,
                    actor.unit,
                    epochs=actor.epochs,
                    fresh=actor.fresh_per_state,
                    logprobs=True,
                    max_staleness=actor.max_staleness,
                )
            )
        return phases

    def step(self, phase: Phase, micro_batches: MicroBatches, samples: int, version: int) -> StepResult:
        if phase.name == "critic":
            return self.engines.critic_step(micro_batches, samples, lambda v, bar: v_loss(v, bar["q_fresh"]), "fresh")
        return self._actor_step(micro_batches, samples, version)

    def _actor_step(self, micro_batches: MicroBatches, samples: int, version: int) -> StepResult:
        config, engines = self.config.actor, self.engines
        device = self.policy.device
        advantages = [self._advantages(rows) for rows in micro_batches]
        mean, std = moments(advantages)
        scale, shift = (1.0 / max(std, 1e-6), mean) if config.normalise_advantage else (1.0, 0.0)
        sums = dict.fromkeys(("loss", "kl", "tokens", "entropy", "kl_to_clone", "baseline_loss"), 0.0)
        remaining = iter(advantages)

        def loss(rows: Sequence[Row]) -> Tensor:
            layout = engines.policy_encoder.encode(rows, ("fresh",), 0).to(device)
            predictions = layout.predictions["fresh"]
            behaviour, versions = (torch.from_numpy(a).to(device) for a in fresh_record(rows))
            weight = token_advantages((next(remaining) - shift) * scale, predictions)
            extra = torch.zeros((), device=device)
            if config.token_baseline:
                logprob, baseline = self.policy(layout, predictions, baseline=True)
                extra = value_loss(baseline, weight)
                sums["baseline_loss"] += extra.item()
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
            if engines.reference is not None:
                kl = reference_kl(logprob, engines.reference(layout, predictions))
                sums["kl_to_clone"] += kl.item()
                extra = extra + config.kl_to_clone * kl
            sums["loss"] += total.item()
            sums["kl"] += behaviour_kl(logprob, behaviour).item()
            sums["tokens"] += logprob.numel()
            sums["entropy"] -= logprob.sum().item()
            return (total + extra) / config.fresh_per_state

        norm = self.policy.step(micro_batches, loss, global_size=samples)
        sums = all_reduce_sum(sums, device)
        tokens = max(sums["tokens"], 1.0)
        metrics = {
            "actor/loss": sums["loss"] / (samples * config.fresh_per_state),
            "actor/kl": sums["kl"] / tokens,
            "actor/entropy": sums["entropy"] / tokens,
            "actor/advantage": mean,
            "actor/advantage_std": std,
            "actor/norm": norm,
        }
        if engines.reference is not None:
            metrics["actor/kl_to_clone"] = sums["kl_to_clone"] / tokens
        if config.token_baseline:
            metrics["actor/baseline_loss"] = sums["baseline_loss"] / tokens
        return StepResult(metrics, stop=config.kl_stop is not None and metrics["actor/kl"] > config.kl_stop)

    def _advantages(self, rows: Sequence[Row]) -> Tensor:
        """A(s, a) of each fresh action, [samples, actions]."""
        values = self.engines.values(rows, "fresh")
        return advantage(values["q_fresh"], values["v_state"]).to(self.policy.device)


def token_advantages(advantages: Tensor, predictions: Predictions) -> Tensor:
    """The utterance's advantage on each of its tokens: [samples, actions] to [tokens]."""
    return advantages[predictions.sample, predictions.action]
