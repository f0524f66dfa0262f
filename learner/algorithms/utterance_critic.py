"""What the utterance-level methods share: policy, critic and target, and the part of their steps that is the same.

Invariants: actor and critic have their own optimizers and their own gradient clipping; only the target network's
values enter targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from transformers import PreTrainedModel

from learner.algorithms.base import Algorithm, MicroBatches, Phase, StepResult
from learner.algorithms.setup import Setup
from learner.config import CriticConfig, LearnerConfig
from learner.engine.accelerator import deepspeed
from learner.engine.engines import Engine, FrozenEngine, all_reduce_sum
from learner.losses import lambda_target, q_loss, td_target
from learner.models.adapters import twin, weights
from learner.models.critic import Critic
from learner.models.policy import Policy
from learner.passes.layout import Encoder, Part
from learner.passes.packed_encoder import PackedEncoder
from learner.passes.rows import Row

Values = dict[str, Tensor]


class ActorCritic:
    """Engines of one policy and one utterance-level critic.

    Args:
        reference: the policy to stay close to, or None.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        critic: Critic,
        encoder: Encoder,
        pad_token_id: int,
        config: LearnerConfig,
        temperature: float,
        *,
        reference: Callable[[torch.device], FrozenEngine] | None = None,
        actor_lr: float | None = None,
    ) -> None:
        self.config = config
        self.model = model
        self.policy_encoder = PackedEncoder(pad_token_id)
        self.critic_encoder = encoder
        actor = config.actor
        width = actor.baseline_hidden_size if actor.token_baseline else None
        policy = Policy(model, temperature, config.dtype, baseline_width=width)
        self.policy = Engine(policy, config, lr=actor_lr or actor.lr, max_grad_norm=actor.max_grad_norm)
        target = twin(critic)
        self.critic = Engine(critic, config, lr=config.critic.lr, max_grad_norm=config.critic.max_grad_norm)
        self.target = FrozenEngine(target, config, self.critic.device)
        self.reference = reference(self.policy.device) if reference else None

    @classmethod
    def build(cls, setup: Setup, *, actor_lr: float | None = None) -> Self:
        critic, encoder = setup.critic()
        return cls(
            setup.policy_model(),
            critic,
            encoder,
            setup.pad_token_id,
            setup.config,
            setup.temperature,
            reference=setup.reference_policy if setup.config.actor.kl_to_clone else None,
            actor_lr=actor_lr,
        )

    def critic_step(
        self,
        micro_batches: MicroBatches,
        samples: int,
        value_loss: Callable[[Tensor, Values], Tensor],
        bar_q: Part,
    ) -> StepResult:
        """One TD step of Q and one step of V; then the target follows.

        Rows with weights count by them: w e^2 is (sqrt(w) e)^2, so both sides of each squared error are scaled.

        Args:
            value_loss: J_V, summed, of V at the states [heads, samples] and the target network's values.
            bar_q: at which actions `value_loss` needs the target network's Q: "fresh" or "action".

        Returns:
            Metrics, and TD errors where draws are prioritised.
        """
        config, device = self.config.critic, self.critic.device
        sums = dict.fromkeys(("q_loss", "v_loss", "q", "v", "target"), 0.0)
        td_errors: list[np.ndarray] = []

        def loss(rows: Sequence[Row]) -> Tensor:
            following: Part = "next_state" if config.lambda_turn is None else "next_states"
            ahead = self.critic_encoder.encode(rows, (following, bar_q), config.n_step).to(device)
            bar = self.target(ahead, q=(bar_q,), v=(following,))
            target = self._q_target(rows, bar[f"v_{following}"])
            now = self.critic_encoder.encode(rows, ("state", "action"), 1).to(device)
            values = self.critic(now, q=("action",), v=("state",))
            if config.sampler == "prioritised":
                errors = (values["q_action"].detach() - target).abs().mean(0)
                td_errors.append(errors.float().cpu().numpy())
            root = sample_weights(rows, device).sqrt()
            j_q = q_loss(values["q_action"] * root, target * root)
            bar_at = {name: value * (root if value.dim() == 2 else root.unsqueeze(-1)) for name, value in bar.items()}
            j_v = value_loss(values["v_state"] * root, bar_at)
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
        metrics = {f"critic/{k}": value / samples for k, value in means.items()} | {"critic/norm": norm}
        return StepResult(metrics, td_errors=td_errors)

    def _q_target(self, rows: Sequence[Row], next_value: Tensor) -> Tensor:
        """[heads, samples], from V after n turns [heads, samples], or after each of 1 to n [heads, samples, n]."""
        config = self.config.critic

        def after(n: int) -> Tensor:
            """Rewards, discount and termination: [3, samples]."""
            return torch.from_numpy(np.stack(n_step_returns(rows, n, config.gamma))).to(next_value.device)

        if config.lambda_turn is None:
            reward, discount, terminated = after(config.n_step)
            return td_target(reward, discount, terminated, next_value)
        reward, discount, terminated = torch.stack([after(n) for n in range(1, config.n_step + 1)], -1)
        return lambda_target(reward, discount, terminated, next_value, config.lambda_turn)

    def values(self, rows: Sequence[Row], part: Part) -> Values:
        """The critic's Q at the actions `part` and V at their states, without gradient."""
        horizon = 0 if part == "fresh" else 1
        layout = self.critic_encoder.encode(rows, ("state", part), horizon).to(self.critic.device)
        with torch.no_grad():
            return self.critic(layout, q=(part,), v=("state",))

    def critic_state(self) -> dict[str, Tensor]:
        """The critic's whole weights on the host, adapters merged, on rank 0; called on all ranks, elsewhere empty."""
        module, first = self.critic.module, dist.get_rank() == 0
        state: dict[str, Tensor] = {}
        for weight in weights(module):
            with deepspeed.zero.GatheredParameters(weight.parts, enabled=self.config.zero_stage == 3):
                if first:
                    state[weight.name] = weight.merged().to("cpu", copy=True)
        if first:
            kept = module.state_dict()
            state |= {name: buffer.to("cpu", copy=True) for name, buffer in module.named_buffers() if name in kept}
        return state

    def save(self, directory: Path) -> None:
        """Write weights and optimizers below `directory`."""
        self.policy.save(str(directory), "actor")
        self.critic.save(str(directory), "critic")
        torch.save(self.target.state(), directory / f"target-{dist.get_rank()}.pt")

    def load(self, directory: Path) -> None:
        """Read what `save` wrote."""
        self.policy.load(str(directory), "actor")
        self.critic.load(str(directory), "critic")
        self.target.load_state(torch.load(directory / f"target-{dist.get_rank()}.pt", weights_only=True))


def critic_phase(config: CriticConfig, *, fresh: int) -> Phase:
    """The critic's draws from all of replay."""
    return Phase(
        "critic",
        config.steps_per_cycle,
        config.batch,
        config.unit,
        fresh=fresh,
        sampler=config.sampler,
        importance=config.importance_exponent,
    )


class OverActorCritic(Algorithm):
    """An algorithm whose whole state is an `ActorCritic`, so that another one can go on from it."""

    def __init__(self, engines: ActorCritic) -> None:
        self.engines = engines
        self.config = engines.config
        self.policy = engines.policy

    @classmethod
    def build(cls, setup: Setup) -> Self:
        return cls(ActorCritic.build(setup))

    @property
    def policy_model(self) -> PreTrainedModel:
        return self.engines.model

    def save(self, directory: Path) -> None:
        self.engines.save(directory)

    def load(self, directory: Path) -> None:
        self.engines.load(directory)


def sample_weights(rows: Sequence[Row], device: torch.device) -> Tensor:
    """By how much each sample counts, float32 [samples] in the order of the layout; 1 where rows say nothing."""
    weights = [row.weights if len(row.weights) else np.ones(len(row.turns), np.float32) for row in rows]
    return torch.from_numpy(np.concatenate(weights)).to(device)


def n_step_returns(rows: Sequence[Row], n: int, gamma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `td_target` needs of each sample: summed rewards, discount and termination, float32 [samples].

    Samples are in the order of the layout: row by row, turn by turn. Sums are cut at the end of the episode.
    """
    reward, discount, terminated = [], [], []
    for row in rows:
        episode, last = row.episode, row.episode.turns
        for turn in row.turns:
            end = min(int(turn) + n, last)
            steps = np.arange(end - turn)
            reward.append(float((episode.reward[turn:end] * gamma**steps).sum()))
            discount.append(gamma ** (end - int(turn)))
            terminated.append(float(episode.terminated and end == last))
    return tuple(np.asarray(a, dtype=np.float32) for a in (reward, discount, terminated))  # type: ignore[return-value]
