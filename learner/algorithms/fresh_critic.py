"""The critic whose V is a backup of Q over fresh actions: Q heads only, with targets over whole episodes.

V(s) is computed at every state of an episode from the distinct fresh actions there (`critic.backup`), so that it
follows the policy without the delay of V heads. Targets are Retrace's (`critic.retrace`), n-step or lambda-returns.

Retrace compares the policy's probability of each action of the data with that of the policy that wrote it
(`learner.algorithms.action_ratios`). No policy wrote demonstrations and imported episodes: there it takes the
probability of the clone, or a tree backup, which needs none (`critic.unwritten`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from learner.algorithms.auxiliary import AuxiliaryLosses
from learner.algorithms.targets import backup_at_states, n_step_returns, sample_weights
from learner.algorithms.utterance_critic import ActorCritic, MicroBatchLoss
from learner.engine.sums import Sums
from learner.errors import LearnerError
from learner.losses import lambda_target, retrace_target, td_target
from learner.models.value_codes import HistogramCode
from learner.passes.rows import Row


def fresh_values_loss(
    engines: ActorCritic, auxiliary: AuxiliaryLosses, sums: Sums, td_errors: list[Tensor]
) -> MicroBatchLoss:
    """Return the loss J_Q of a micro-batch of whole episodes, summed over heads and samples, with `auxiliary`.

    Args:
        sums: gets the sums of the step's metrics.
        td_errors: gets |Q(s, a) - target| of each micro-batch, mean over heads.
    """
    critic, device = engines.critic, engines.critic.device
    code = engines.code

    def loss(rows: Sequence[Row]) -> Tensor:
        require_support(code, rows, engines.config.critic.gamma)
        ahead = engines.critic_encoder.encode(rows, ("fresh", "action"), 1).to(device)
        bar = engines.target(ahead, q=("fresh", "action"))
        states = backup_at_states(engines.config.critic, rows, bar["q_fresh"])
        target = _targets(engines, rows, states, bar["q_action"])
        now = engines.critic_encoder.encode(rows, ("action", *auxiliary.parts), 1).to(device)
        found = critic(now, q=("action",), outputs=True)
        outputs = found["q_action"]
        q = code.value(outputs.detach())
        error = code.error(outputs, target)
        weight = sample_weights(rows, device)
        heads = len(target)
        td_errors.append((q - target).abs().mean(0).float())
        sums.add(q_loss=error.detach().sum() / heads, q=q.sum() / heads, target=target.sum() / heads)
        v = states[:, is_turn(rows, device)]
        sums.add(v=v.sum() / heads)
        engines.note_values(rows, q, v, target)
        return (error * weight).sum() + auxiliary.of(found, now.predictions)

    return loss


def is_turn(rows: Sequence[Row], device: torch.device) -> Tensor:
    """Return whether each state of `rows` is that of a sampled turn, bool [states]; else it follows the last one."""
    flags = [np.arange(len(row.states)) < len(row.turns) for row in rows]
    return torch.from_numpy(np.concatenate(flags)).to(device)


def require_support(code: object, rows: Sequence[Row], gamma: float) -> None:
    """Raise LearnerError if an episode has a discounted return that the histogram's support does not contain."""
    if not isinstance(code, HistogramCode):
        return
    low, high = float(code.edges[0]), float(code.edges[-1])
    for row in rows:
        total = 0.0
        for reward in row.episode.reward[::-1]:
            total = float(reward) + gamma * total
            if not low <= total <= high:
                raise LearnerError(
                    f"episode {row.episode.episode_id} has a discounted return to go of {total:g}, outside the "
                    f"critic's support [{low:g}, {high:g}]; set learner.critic.support to a range that contains it"
                )


def _targets(engines: ActorCritic, rows: Sequence[Row], states: Tensor, q_action: Tensor) -> Tensor:
    """Return the targets of Q, [heads, samples], from the target network's values.

    Args:
        states: Vbar at the states of `rows`, [heads, states].
        q_action: Qbar of the data's actions, [heads, samples].
    """
    config, device = engines.config.critic, states.device
    turns, of_states = Grid([len(row.turns) for row in rows]), Grid([len(row.states) for row in rows])
    longest = turns.longest
    # One column more than turns: the state after the last turn, of value 0 where the episode terminated there.
    value = of_states.spread(states, longest + 1)
    if config.retrace is None:
        number = torch.from_numpy(np.concatenate([np.arange(len(row.turns)) for row in rows])).to(device)
        row_of = torch.from_numpy(turns.row).to(device)
        last = torch.from_numpy(turns.lengths[turns.row]).to(device)
        steps = range(1, config.n_step + 1)
        returns = [torch.from_numpy(n_step_returns(rows, n, config.gamma)).to(device) for n in steps]
        ahead = [value[:, row_of, torch.minimum(number + n, last)] for n in steps]
        if config.lambda_turn is None:
            reward, discount, terminated = returns[-1]
            return td_target(reward, discount, terminated, ahead[-1])
        reward, discount, terminated = torch.stack(returns, -1)
        return lambda_target(reward, discount, terminated, torch.stack(ahead, -1), config.lambda_turn)
    rewards = np.concatenate([row.episode.reward[: len(row.turns)] for row in rows]).astype(np.float32)
    trace = config.retrace * engines.ratios(rows).clamp(max=1.0).to(device)
    targets = retrace_target(
        turns.spread(torch.from_numpy(rewards).to(device), longest),
        config.gamma,
        # Traces and Q of the next turn: shifted by one, and 0 after the last turn.
        turns.spread(trace, longest + 1)[..., 1:],
        value[..., 1:],
        turns.spread(q_action, longest + 1)[..., 1:],
    )
    return turns.gather(targets)


class Grid:
    """Places values that follow each other row by row, [..., total], into a padded table [..., rows, columns]."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = np.asarray(lengths)
        self.longest = int(self.lengths.max())
        self.row = np.repeat(np.arange(len(self.lengths)), self.lengths)
        self.column = np.arange(len(self.row)) - (np.cumsum(self.lengths) - self.lengths)[self.row]

    def spread(self, values: Tensor, columns: int) -> Tensor:
        """Return the table of `values`, with 0 at pads."""
        table = values.new_zeros(*values.shape[:-1], len(self.lengths), columns)
        table[..., self.row, self.column] = values
        return table

    def gather(self, table: Tensor) -> Tensor:
        """Return the values of a table that `spread` could have made."""
        return table[..., self.row, self.column]
