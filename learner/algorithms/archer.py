"""ArCHer: an off-policy critic over utterances feeds a policy gradient over tokens (Zhou et al., ICML 2024).

Invariants: the policy is frozen while the critic learns and the critic while the actor learns, so a cycle's fresh
actions of each phase can be asked for ahead of need. Actor and critic have their own optimizers and their own
gradient clipping. Only the target network's values enter targets.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from transformers import PreTrainedModel

from learner.algorithms.base import Algorithm, Phase, StepResult
from learner.config import LearnerConfig
from learner.critic import Critic
from learner.engine import Engine, FrozenEngine, all_reduce_sum
from learner.layout import Encoder, PackedEncoder, Predictions
from learner.losses import advantage, behaviour_kl, policy_gradient_loss, q_loss, td_target, v_loss
from learner.policy import Policy
from learner.rows import Row


class Archer(Algorithm):
    """Critic phase, then actor phase, in each cycle; only the critic's in the first `warmup_cycles`."""

    def __init__(
        self,
        model: PreTrainedModel,
        critic: Critic,
        encoder: Encoder,
        pad_token_id: int,
        config: LearnerConfig,
        temperature: float,
    ) -> None:
        self.config = config
        self._model = model
        self._policy_encoder = PackedEncoder(pad_token_id)
        self._critic_encoder = encoder
        self.policy = Engine(
            Policy(model, temperature), config, lr=config.actor.lr, max_grad_norm=config.actor.max_grad_norm
        )
        target = copy.deepcopy(critic)
        self.critic = Engine(critic, config, lr=config.critic.lr, max_grad_norm=config.critic.max_grad_norm)
        self.target = FrozenEngine(target, config, self.critic.device)

    @property
    def policy_model(self) -> PreTrainedModel:
        return self._model

    def phases(self, cycle: int) -> Sequence[Phase]:
        critic, actor = self.config.critic, self.config.actor
        phases = [Phase("critic", critic.steps_per_cycle, critic.batch, critic.unit, fresh=critic.fresh_per_state)]
        if cycle >= critic.warmup_cycles:
            phases.append(
                Phase(
                    "actor",
                    actor.steps_per_cycle,
                    actor.batch,
                    actor.unit,
                    epochs=actor.epochs,
                    fresh=actor.fresh_per_state,
                    max_staleness=actor.max_staleness,
                )
            )
        return phases

    def step(self, phase: Phase, micro_batches: Sequence[Sequence[Row]], samples: int, version: int) -> StepResult:
        if phase.name == "critic":
            return self._critic_step(micro_batches, samples)
        return self._actor_step(micro_batches, samples, version)

    def _critic_step(self, micro_batches: Sequence[Sequence[Row]], samples: int) -> StepResult:
        config = self.config.critic
        device = self.critic.device
        sums = dict.fromkeys(("q_loss", "v_loss", "q", "v", "target"), 0.0)

        def loss(rows: Sequence[Row]) -> Tensor:
            ahead = self._critic_encoder.encode(rows, ("next_state", "fresh"), config.n_step).to(device)
            bar = self.target(ahead, q=("fresh",), v=("next_state",))
            reward, discount, terminated = (
                torch.from_numpy(a).to(device) for a in n_step_returns(rows, config.n_step, config.gamma)
            )
            target = td_target(reward, discount, terminated, bar["v_next_state"])
            now = self._critic_encoder.encode(rows, ("state", "action"), 1).to(device)
            values = self.critic(now, q=("action",), v=("state",))
            j_q = q_loss(values["q_action"], target)
            j_v = v_loss(values["v_state"], bar["q_fresh"])
            heads = len(target)
            sums["q_loss"] += j_q.item() / heads
            sums["v_loss"] += j_v.item() / heads
            sums["q"] += values["q_action"].sum().item() / heads
            sums["v"] += values["v_state"].sum().item() / heads
            sums["target"] += target.sum().item() / heads
            return j_q + j_v

        norm = self.critic.step(micro_batches, loss, global_size=samples)
        self.target.average_towards(self.critic, config.tau)
        means = all_reduce_sum(sums, device)
        return StepResult({f"critic/{k}": value / samples for k, value in means.items()} | {"critic/norm": norm})

    def _actor_step(self, micro_batches: Sequence[Sequence[Row]], samples: int, version: int) -> StepResult:
        config = self.config.actor
        device = self.policy.device
        advantages = [self._advantages(rows) for rows in micro_batches]
        moments = self._moments(advantages)
        scale = 1.0 / max(moments["std"], 1e-6) if config.normalise_advantage else 1.0
        shift = moments["mean"] if config.normalise_advantage else 0.0
        sums = dict.fromkeys(("loss", "kl", "tokens", "entropy"), 0.0)
        remaining = iter(advantages)

        def loss(rows: Sequence[Row]) -> Tensor:
            layout = self._policy_encoder.encode(rows, ("fresh",), 0).to(device)
            predictions = layout.predictions["fresh"]
            logprob = self.policy(layout, predictions)
            behaviour, versions = (torch.from_numpy(a).to(device) for a in fresh_record(rows))
            scaled = (next(remaining) - shift) * scale
            total = policy_gradient_loss(
                logprob,
                behaviour,
                token_advantages(scaled, predictions),
                versions == version,
                importance_cap=config.importance_cap,
                clip=config.clip,
            )
            sums["loss"] += total.item()
            sums["kl"] += behaviour_kl(logprob, behaviour).item()
            sums["tokens"] += logprob.numel()
            sums["entropy"] -= logprob.sum().item()
            return total / config.fresh_per_state

        norm = self.policy.step(micro_batches, loss, global_size=samples)
        sums = all_reduce_sum(sums, device)
        kl = sums["kl"] / max(sums["tokens"], 1.0)
        return StepResult(
            {
                "actor/loss": sums["loss"] / (samples * config.fresh_per_state),
                "actor/kl": kl,
                "actor/entropy": sums["entropy"] / max(sums["tokens"], 1.0),
                "actor/advantage": moments["mean"],
                "actor/advantage_std": moments["std"],
                "actor/norm": norm,
            },
            stop=config.kl_stop is not None and kl > config.kl_stop,
        )

    def _advantages(self, rows: Sequence[Row]) -> Tensor:
        """A(s, a) of each fresh action, [samples, actions]."""
        layout = self._critic_encoder.encode(rows, ("state", "fresh"), 0).to(self.critic.device)
        with torch.no_grad():
            values = self.critic(layout, q=("fresh",), v=("state",))
        return advantage(values["q_fresh"], values["v_state"]).to(self.policy.device)

    def _moments(self, advantages: Sequence[Tensor]) -> dict[str, float]:
        """Mean and standard deviation over the global batch."""
        flat = torch.cat([a.flatten() for a in advantages]).double()
        sums = torch.stack([flat.sum(), flat.square().sum(), torch.tensor(float(flat.numel())).to(flat)])
        dist.all_reduce(sums)
        total, squares, count = sums.tolist()
        mean = total / count
        return {"mean": mean, "std": max(squares / count - mean**2, 0.0) ** 0.5}

    def save(self, directory: Path) -> None:
        super().save(directory)
        self.critic.save(str(directory), "critic")
        torch.save(self.target.state(), directory / f"target-{dist.get_rank()}.pt")

    def load(self, directory: Path) -> None:
        super().load(directory)
        self.critic.load(str(directory), "critic")
        self.target.load_state(torch.load(directory / f"target-{dist.get_rank()}.pt", weights_only=True))


def n_step_returns(rows: Sequence[Row], n: int, gamma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `td_target` needs of each sample: summed rewards, discount and termination, float32 [samples].

    Samples are in the order of the layout: row by row, turn by turn. Sums are cut at the end of the episode.
    """
    reward, discount, terminated = [], [], []
    for row in rows:
        last = len(row.action_start)
        for turn in row.turns:
            end = min(int(turn) + n, last)
            steps = np.arange(end - turn)
            reward.append(float((row.reward[turn:end] * gamma**steps).sum()))
            discount.append(gamma ** (end - int(turn)))
            terminated.append(float(row.terminated and end == last))
    return tuple(np.asarray(a, dtype=np.float32) for a in (reward, discount, terminated))  # type: ignore[return-value]


def fresh_record(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Behaviour log-probability (float32) and version (int64) of each fresh token, in the layout's order."""
    logprobs = [a for row in rows for actions in row.fresh_logprobs for a in actions]
    versions = [a for row in rows for actions in row.fresh_versions for a in actions]
    return np.concatenate(logprobs).astype(np.float32), np.concatenate(versions).astype(np.int64)


def token_advantages(advantages: Tensor, predictions: Predictions) -> Tensor:
    """The utterance's advantage on each of its tokens: [samples, actions] to [tokens]."""
    return advantages[predictions.sample, predictions.action]
