"""Behavioural cloning: maximise the likelihood of the actions in replay."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from learner.algorithms.base import Algorithm, Phase, StepResult
from learner.config import LearnerConfig
from learner.engine import Engine, all_reduce_sum
from learner.layout import PackedEncoder
from learner.losses import cloning_loss
from learner.policy import Policy
from learner.rows import Row


class BehaviourCloning(Algorithm):
    """One phase of likelihood steps on whole episodes; the stop token of an action is part of it.

    The likelihood is taken at temperature 1, whatever temperature the engines sample with.
    """

    def __init__(self, model: PreTrainedModel, pad_token_id: int, config: LearnerConfig, temperature: float) -> None:
        self._config = config
        self._model = model
        self._encoder = PackedEncoder(pad_token_id)
        self._step = 0
        self.policy = Engine(
            Policy(model, temperature), config, lr=config.clone.lr, max_grad_norm=config.actor.max_grad_norm
        )

    @property
    def policy_model(self) -> PreTrainedModel:
        return self._model

    def phases(self, cycle: int) -> Sequence[Phase]:
        return [Phase("clone", self._config.clone.steps, self._config.clone.batch, "episode")]

    def step(self, phase: Phase, micro_batches: Sequence[Sequence[Row]], samples: int, version: int) -> StepResult:
        clone = self._config.clone
        # Falls to zero, so that the noise of the last batches doesn't stay in what is played.
        self.policy.set_lr(clone.lr * (1.0 - self._step / clone.steps))
        self._step += 1
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
            {"clone/loss": sums["loss"] / samples, "clone/token_nll": sums["loss"] / sums["tokens"], "clone/norm": norm}
        )
