"""Behavioural cloning: maximise the likelihood of the demonstrations' actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from transformers import PreTrainedModel

from learner.algorithms.base import Algorithm, MicroBatches, Phase, StepResult
from learner.algorithms.setup import Setup
from learner.config import LearnerConfig
from learner.engine.engines import Engine, all_reduce_sum
from learner.losses import cloning_loss
from learner.models.policy import Policy
from learner.passes.packed_encoder import PackedEncoder
from learner.passes.rows import Row


class Cloning(Algorithm):
    """Likelihood steps on whole episodes; the stop token of an action is part of it.

    The likelihood is taken at temperature 1, whatever temperature the engines sample with.
    """

    def __init__(
        self, model: PreTrainedModel, pad_token_id: int, config: LearnerConfig, temperature: float, *, lr: float
    ) -> None:
        self.config = config
        self._model = model
        self._encoder = PackedEncoder(pad_token_id)
        self.policy = Engine(
            Policy(model, temperature, config.dtype), config, lr=lr, max_grad_norm=config.actor.max_grad_norm
        )

    @property
    def policy_model(self) -> PreTrainedModel:
        return self._model

    def step(self, phase: Phase, micro_batches: MicroBatches, samples: int, version: int) -> StepResult:
        sums = {"loss": 0.0, "tokens": 0.0}

        def loss(rows: Sequence[Row]) -> torch.Tensor:
            layout = self._encoder.encode(rows, ("action",)).to(self.policy.device)
            logprob = self.policy(layout, layout.predictions["action"], temperature=1.0)
            total = cloning_loss(logprob)
            sums["loss"] += total.item()
            sums["tokens"] += logprob.numel()
            return total

        norm = self.policy.step(micro_batches, loss, global_size=samples)
        sums = all_reduce_sum(sums, self.policy.device)
        return StepResult(
            {
                f"{phase.name}/loss": sums["loss"] / samples,
                f"{phase.name}/token_nll": sums["loss"] / sums["tokens"],
                f"{phase.name}/norm": norm,
            }
        )


class BehaviourCloning(Cloning):
    """The stage before the first cycle; chosen as a run's algorithm, its cycles only play: what others start from."""

    def __init__(self, model: PreTrainedModel, pad_token_id: int, config: LearnerConfig, temperature: float) -> None:
        super().__init__(model, pad_token_id, config, temperature, lr=config.clone.lr)
        self._step = 0

    @classmethod
    def build(cls, setup: Setup) -> Self:
        return cls(setup.policy_model(), setup.pad_token_id, setup.config, setup.temperature)

    @property
    def stage(self) -> Phase:
        """The whole of cloning, as one phase over the demonstrations."""
        return Phase("clone", self.config.clone.steps, self.config.clone.batch, "episode")

    def phases(self, cycle: int) -> Sequence[Phase]:
        return []

    def step(self, phase: Phase, micro_batches: MicroBatches, samples: int, version: int) -> StepResult:
        clone = self.config.clone
        # Falls to zero, so that the noise of the last batches doesn't stay in what is played.
        self.policy.set_lr(clone.lr * (1.0 - self._step / clone.steps))
        self._step += 1
        return super().step(phase, micro_batches, samples, version)
