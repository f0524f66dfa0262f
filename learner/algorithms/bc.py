"""Behavioural cloning: maximise the likelihood of the demonstrations' actions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from learner.algorithms.base import Algorithm, MicroBatches, StepResult
from learner.algorithms.phases import Draws, Phase
from learner.algorithms.setup import Setup
from learner.engine.engines import Engine
from learner.engine.sums import Sums
from learner.losses import cloning_loss
from learner.passes.packed_encoder import PackedEncoder
from learner.passes.rows import Row


class Cloning(Algorithm):
    """Takes likelihood steps on whole episodes. The stop token of an action is one of its tokens.

    The likelihood is that at temperature 1, at any sampling temperature of the engines.
    """

    def __init__(self, setup: Setup, *, lr: float) -> None:
        self.config = setup.config
        self._encoder = PackedEncoder(setup.pad_token_id)
        self.policy = Engine(setup.policy(), setup.config, lr=lr, max_grad_norm=setup.config.actor.max_grad_norm)

    def step(self, phase: Phase, micro_batches: MicroBatches, samples: int, version: int) -> StepResult:
        sums = Sums(self.policy.device)

        def loss(rows: Sequence[Row]) -> Tensor:
            layout = self._encoder.encode(rows, ("action",)).to(self.policy.device)
            logprob = self.policy(layout, layout.predictions["action"], temperature=1.0)
            total = cloning_loss(logprob)
            sums.add(loss=total, token_nll=total, tokens=logprob.numel())
            return total

        norm = self.policy.step(micro_batches, loss, global_size=samples)
        return StepResult(sums.means(phase.name, samples) | {f"{phase.name}/norm": norm})


class BehaviourCloning(Cloning):
    """The stage before the first cycle. As the algorithm of a run its cycles have no phases: the policy only plays."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup, lr=setup.config.clone.lr)
        self._step = 0

    @property
    def stage(self) -> Draws:
        """All of cloning, as one phase over the demonstrations."""
        return Draws("clone", self.config.clone.steps, self.config.clone.batch)

    def phases(self, cycle: int) -> Sequence[Phase]:
        return []

    def step(self, phase: Phase, micro_batches: MicroBatches, samples: int, version: int) -> StepResult:
        clone = self.config.clone
        # The rate falls to zero, so that the noise of single batches averages out.
        self.policy.set_lr(clone.lr * (1.0 - self._step / clone.steps))
        self._step += 1
        return super().step(phase, micro_batches, samples, version)
