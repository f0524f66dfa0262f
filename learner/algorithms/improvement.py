"""The actor that regresses onto its improvement over the fresh actions, in place of the policy gradient.

The fresh actions and their shares are those of the policy at the beginning of the phase, and the critic does not change
in the phase. The improved policy is therefore the same in each epoch, as if it were computed before the first step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from learner.algorithms.base import MicroBatches, StepResult
from learner.algorithms.utterance_critic import ActorCritic, token_advantages
from learner.engine.sums import Sums
from learner.losses import behaviour_kl, cloning_loss, improvement_weights, reference_kl
from learner.passes.rows import Row, fresh_record, fresh_shares


def improvement_step(engines: ActorCritic, micro_batches: MicroBatches, samples: int) -> StepResult:
    """Take one step of the cross-entropy from the improved policy, over the fresh actions, to the policy."""
    config, device = engines.config.actor, engines.policy.device
    advantages = [_advantage(engines, rows) for rows in micro_batches]
    shares = [torch.from_numpy(fresh_shares(rows)).to(device) for rows in micro_batches]
    least, most = config.weight_range
    sums = Sums(device)

    def loss(rows: Sequence[Row], advantage: Tensor, share: Tensor) -> Tensor:
        layout = engines.policy_encoder.encode(rows, ("fresh",), 0).to(device)
        predictions = layout.predictions["fresh"]
        improved = improvement_weights(
            advantage,
            share,
            shape=config.weights,
            temperature=config.temperature,
            least=least,
            most=most,
            dropped=config.dropped_share,
        )
        logprob = engines.policy(layout, predictions)
        total = cloning_loss(logprob, token_advantages(improved, predictions))
        extra = torch.zeros((), device=device)
        if engines.reference is not None and config.kl_to_clone:
            weight = token_advantages(share, predictions)
            extra = config.kl_to_clone * reference_kl(logprob, engines.reference(layout, predictions), weight)
        behaviour = torch.from_numpy(fresh_record(rows)[0]).to(device)
        drawn = token_advantages(share, predictions)
        sums.gaps(logprob, behaviour, torch.ones_like(behaviour, dtype=torch.bool))
        sums.add(loss=total, kl=behaviour_kl(logprob, behaviour, drawn), entropy=-(drawn * logprob).sum())
        sums.add(distinct=(share > 0).sum(), moved=0.5 * (improved - share).abs().sum(), tokens=drawn.sum())
        sums.add(advantage_std=(share * advantage.square()).sum())
        return total + extra

    norm = engines.policy.step(micro_batches, loss, advantages, shares, global_size=samples)
    metrics = sums.means("actor", samples, ("loss", "distinct", "moved", "advantage_std")) | {"actor/norm": norm}
    metrics["actor/advantage_std"] **= 0.5
    stop = config.kl_stop is not None and metrics["actor/kl"] > config.kl_stop
    return StepResult(metrics, stop=stop, gaps=sums.gap_counts)


def _advantage(engines: ActorCritic, rows: Sequence[Row]) -> Tensor:
    """Return the advantage of the fresh actions, [states, most actions], which is computed in the first epoch only."""
    if any(row.advantage is None for row in rows):
        found = engines.advantage(rows, "fresh")
        for row, part in zip(rows, found.split([len(row.states) for row in rows]), strict=True):
            row.advantage = part.cpu().numpy()
    return torch.from_numpy(np.concatenate([row.advantage for row in rows])).to(engines.policy.device)
