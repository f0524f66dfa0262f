"""The steps that `gpu.py` times: the learner's passes and losses, and AdamW in place of a DeepSpeed engine.

They are the steps of `learner.algorithms.archer` on one rank at ZeRO stage 0, where DeepSpeed adds nothing to weights,
gradients and optimizer; `tests/bench/test_bench_gpu.py` compares losses and gradient norms. The actor's step is given
the advantages, which the learner computes with the critic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.gpu_models import Kind, Settings, samples_of
from bench.random_rows import PAD
from learner.algorithms.targets import n_step_returns
from learner.losses import policy_gradient_loss, td_target, v_loss
from learner.models.pretrained import layers_of
from learner.passes.layout import Layout
from learner.passes.packed_encoder import PackedEncoder
from learner.passes.precision import in_float32
from learner.passes.rows import Row, fresh_record

MicroBatches = Sequence[Sequence[Row]]


class Stepper:
    """One trained part with its optimizer, and the step that trains it."""

    def __init__(self, parts: dict[str, nn.Module], kind: Kind, settings: Settings, *, lr: float = 1e-5) -> None:
        self.parts, self.kind, self.settings = parts, kind, settings
        self.device = next(parts[kind].parameters()).device
        trained = in_float32(parts[kind])
        self._trained = trained
        self._optimizer = torch.optim.AdamW(trained, lr=lr, betas=(0.9, 0.95), weight_decay=0.0)
        if kind == "critic":
            self._averaged = in_target(parts["target"], parts["critic"])

    def step(self, micro_batches: MicroBatches, advantages: Sequence[Tensor] | None = None) -> dict[str, Tensor]:
        """Take one step. Returns the loss, a mean over samples, and the norm of the gradient, on the device.

        Args:
            advantages: of each micro-batch for a step of the policy, float32 [samples, actions]; ones by default.
        """
        samples = samples_of(micro_batches)
        total = torch.zeros((), device=self.device)
        for index, rows in enumerate(micro_batches):
            loss = self._loss(rows, None if advantages is None else advantages[index]) / samples
            loss.backward()
            total += loss.detach()
        norm = nn.utils.clip_grad_norm_(self._trained, self.settings.actor.max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self.kind == "critic":
            with torch.no_grad():
                for target, source in self._averaged:
                    target.lerp_(source, self.settings.critic.tau)
        return {"loss": total, "norm": norm}

    @property
    def optimizer_bytes(self) -> int:
        """The bytes of the optimizer's state, of which there is none before the first step."""
        states = self._optimizer.state.values()
        return sum(t.untyped_storage().nbytes() for state in states for t in state.values() if isinstance(t, Tensor))

    def layouts(self, rows: Sequence[Row]) -> list[tuple[Layout, bool]]:
        """Return the layouts that a step of `rows` passes, and whether their pass is trained."""
        encoder = PackedEncoder(PAD)
        if self.kind == "policy":
            return [(encoder.encode(rows, ("fresh",), 0), True)]
        n_step = self.settings.critic.n_step
        ahead = encoder.encode(rows, ("next_state", "fresh"), n_step)
        return [(ahead, False), (encoder.encode(rows, ("state", "action"), 1), True)]

    def compile_layers(self) -> None:
        """Let `torch.compile` compile each block of the backbone, with sizes that may change."""
        for part in self.parts.values():
            layers: Any = layers_of(_backbone(part))
            for block in layers.layers:
                block.compile(dynamic=True)

    def _loss(self, rows: Sequence[Row], advantage: Tensor | None) -> Tensor:
        return self._actor_loss(rows, advantage) if self.kind == "policy" else self._critic_loss(rows)

    def _actor_loss(self, rows: Sequence[Row], advantage: Tensor | None) -> Tensor:
        """Return J_pi on the fresh actions, summed."""
        actor = self.settings.actor
        ((layout, _),) = self.layouts(rows)
        layout = layout.to(self.device)
        predictions = layout.predictions["fresh"]
        behaviour, versions = (torch.from_numpy(found).to(self.device) for found in fresh_record(rows))
        logprob = self.parts["policy"](layout, predictions)
        weight = torch.ones_like(logprob) if advantage is None else advantage[predictions.sample, predictions.action]
        total = policy_gradient_loss(
            logprob, behaviour, weight, versions == 1, importance_cap=actor.importance_cap, clip=actor.clip
        )
        return total / actor.fresh_per_state

    def _critic_loss(self, rows: Sequence[Row]) -> Tensor:
        """Return J_Q + J_V, summed over heads and samples."""
        config = self.settings.critic
        (ahead, _), (now, _) = self.layouts(rows)
        with torch.no_grad():
            bar = self.parts["target"](ahead.to(self.device), q=("fresh",), v=("next_state",))
        returns = torch.from_numpy(n_step_returns(rows, config.n_step, config.gamma)).to(self.device)
        reward, discount, terminated = returns
        target = td_target(reward, discount, terminated, bar["v_next_state"])
        critic: Any = self.parts["critic"]
        outputs = critic(now.to(self.device), q=("action",), v=("state",), outputs=True)
        j_q = critic.code.error(outputs["q_action"], target).sum()
        return j_q + v_loss(critic.code.value(outputs["v_state"]), bar["q_fresh"])


def in_target(target: nn.Module, critic: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Return the pairs of parameters of which the target network keeps the average, in float32."""
    pairs: list[tuple[Tensor, Tensor]] = []
    for average, source in zip(target.parameters(), critic.parameters(), strict=True):
        if source.requires_grad:
            average.data = average.data.float()
            pairs.append((average, source))
    return pairs


def _backbone(part: nn.Module) -> Any:
    module: Any = part
    return module.model if hasattr(module, "model") else module.backbone


def synchronize(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
