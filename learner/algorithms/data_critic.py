"""The critic's warm-up on data: Q and V of the policy that wrote the episodes, without fresh actions.

V heads regress onto the returns to go, and Q onto r + gamma Vbar(s'), the one-step target with the target network's V.
The clone acts about as the demonstrations do, so this is where Q of the clone begins. A step costs one pass with a
gradient and one without: no engine writes fresh actions, and no pass reads them. The variance of the target of Q is
that of one turn, while the returns, which vary over all later turns, only train V, of which there is one per state.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from learner.algorithms.auxiliary import AuxiliaryLosses
from learner.algorithms.fresh_critic import require_support
from learner.algorithms.targets import n_step_returns, sample_weights
from learner.algorithms.utterance_critic import ActorCritic, MicroBatchLoss
from learner.critic_config import CriticConfig
from learner.engine.sums import Sums
from learner.losses import td_target
from learner.passes.rows import Row


def data_values_loss(
    engines: ActorCritic, auxiliary: AuxiliaryLosses, sums: Sums, td_errors: list[Tensor]
) -> MicroBatchLoss:
    """Return the loss J_Q + J_V of a micro-batch of whole episodes, summed over heads and samples, with `auxiliary`.

    Args:
        sums: gets the sums of the step's metrics.
        td_errors: gets |Q(s, a) - target| of each micro-batch, mean over heads.
    """
    critic, device, code = engines.critic, engines.critic.device, engines.code
    gamma = engines.config.critic.gamma

    def loss(rows: Sequence[Row]) -> Tensor:
        require_support(code, rows, gamma)
        layout = engines.critic_encoder.encode(rows, ("state", "action", "next_state", *auxiliary.parts), 1).to(device)
        after = engines.target(layout, v=("next_state",))["v_next_state"]
        target = _target(rows, 1, gamma, after)
        longest = max(len(row.turns) for row in rows)
        # Each sample of a row bootstraps from the state after the last turn of the row.
        last = torch.from_numpy(np.repeat(np.cumsum([len(r.turns) for r in rows]) - 1, [len(r.turns) for r in rows]))
        to_go = _target(rows, longest, gamma, after[:, last.to(device)])
        found = critic(layout, q=("action",), v=("state",), outputs=True)
        q, v = code.value(found["q_action"].detach()), code.value(found["v_state"].detach())
        weight, heads = sample_weights(rows, device), len(q)
        j_q, j_v = code.error(found["q_action"], target), code.error(found["v_state"], to_go)
        td_errors.append((q - target).abs().mean(0).float())
        named = {"q_loss": j_q.detach(), "v_loss": j_v.detach(), "q": q, "v": v, "target": target}
        sums.add(**{name: value.sum() / heads for name, value in named.items()})
        engines.note_values(rows, q, v, target)
        return ((j_q + j_v) * weight).sum() + auxiliary.of(found, layout.predictions)

    return loss


def _target(rows: Sequence[Row], n: int, gamma: float, after: Tensor) -> Tensor:
    """Return the n-step targets that bootstrap from `after`, both [heads, samples]."""
    reward, discount, terminated = torch.from_numpy(n_step_returns(rows, n, gamma)).to(after.device)
    return td_target(reward, discount, terminated, after)


def warmup_rate(config: CriticConfig, step: int) -> float:
    """Return the learning rate of step `step` of the warm-up, from 0: `warmup_lr` at first, then linearly to `lr`."""
    if config.warmup_lr is None:
        return config.lr
    done = min(step / config.warmup_steps, 1.0)
    return config.warmup_lr + (config.lr - config.warmup_lr) * done
