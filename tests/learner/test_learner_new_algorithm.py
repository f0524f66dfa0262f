"""A new algorithm takes one file and its configuration section, as CONTRIBUTING says.

This file is that file: advantage-weighted regression on returns, which the package does not have (Peng et al., 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from actor_cases import save_model
from algorithm_cases import held
from pydantic import Field
from torch import Tensor
from trainer_cases import Memory, cycles, make_args, make_trainer

from learner.algorithm_config import AlgorithmConfig
from learner.algorithms.base import Algorithm, MicroBatches, StepResult
from learner.algorithms.phases import Draws, Phase
from learner.algorithms.setup import Setup
from learner.config import LearnerConfig
from learner.engine.engines import Engine
from learner.engine.sums import Sums, moments
from learner.losses import advantage_weights, cloning_loss
from learner.passes.packed_encoder import PackedEncoder
from learner.passes.rows import Row


class ReturnWeightedConfig(AlgorithmConfig):
    """The configuration section."""

    implementation = f"{__name__}:ReturnWeighted"

    lr: float = Field(1e-3, gt=0, description="Learning rate of AdamW.")
    beta: float = Field(1.0, gt=0, description="Temperature of the weights.")
    steps_per_cycle: int = Field(2, ge=0, description="Gradient steps in each cycle.")
    batch: int = Field(4, ge=1, description="Episodes per step.")


class ReturnWeighted(Algorithm):
    """Clones replay's actions, each weighted by its episode's return above the mean of the batch."""

    def __init__(self, setup: Setup) -> None:
        section = setup.config.section_of("return_weighted")
        assert isinstance(section, ReturnWeightedConfig)
        self.section = section
        self.encoder = PackedEncoder(setup.pad_token_id)
        self.policy = Engine(setup.policy(), setup.config, lr=section.lr, max_grad_norm=1.0)

    def phases(self, cycle: int) -> Sequence[Phase]:
        return [Draws("actor", self.section.steps_per_cycle, self.section.batch)]

    def step(self, phase: Phase, micro_batches: MicroBatches, samples: int, version: int) -> StepResult:
        returns = [torch.tensor([row.episode.ret for row in rows]) for rows in micro_batches]
        mean, _ = moments(returns)
        sums = Sums(self.policy.device)

        def loss(rows: Sequence[Row], ret: Tensor) -> Tensor:
            layout = self.encoder.encode(rows, ("action",)).to(self.policy.device)
            predictions = layout.predictions["action"]
            weight = advantage_weights(ret - mean, self.section.beta, cap=20.0)
            logprob = self.policy(layout, predictions)
            total = cloning_loss(logprob, weight[predictions.row])
            sums.add(loss=total, weight=weight.sum())
            return total

        norm = self.policy.step(micro_batches, loss, returns, global_size=samples)
        return StepResult({f"actor/{k}": v / samples for k, v in sums.total().items()} | {"actor/norm": norm})


class ExtendedConfig(LearnerConfig):
    """`LearnerConfig` with the line that makes the algorithm known."""

    return_weighted: ReturnWeightedConfig = Field(default_factory=ReturnWeightedConfig, description="AWR on returns.")


@pytest.mark.usefixtures("one_rank")
def test_a_new_algorithm_trains_through_the_real_trainer_and_resumes(tmp_path: Path) -> None:
    assert ExtendedConfig.algorithms().keys() - LearnerConfig.algorithms().keys() == {"return_weighted"}
    config = ExtendedConfig(micro_batch=2)
    model = save_model(tmp_path / "model")
    arguments, events = make_args(tmp_path, model, "return_weighted", config, replay=Memory(held()), offline_cycles=2)
    trainer = make_trainer(arguments)
    assert isinstance(trainer.algorithm, ReturnWeighted)
    before = [parameter.detach().clone() for parameter in trainer.algorithm.policy_model.parameters()]
    trainer.run()
    assert [metrics["actor/steps"] for metrics in cycles(events)] == [2, 2]
    assert [metrics["policy_version"] for metrics in cycles(events)] == [1, 2], "each cycle changes the policy"
    after = list(trainer.algorithm.policy_model.parameters())
    assert max(float((a - b).abs().max()) for a, b in zip(before, after, strict=True)) > 1e-4

    first = tmp_path / "checkpoints" / "cycle-00001"
    arguments, again = make_args(
        tmp_path, model, "return_weighted", config, replay=Memory(held()), offline_cycles=2, resume=first
    )
    make_trainer(arguments).run()
    for name in ("actor/loss", "actor/weight", "actor/norm"):
        np.testing.assert_allclose(cycles(again)[0][name], cycles(events)[1][name], rtol=1e-6)
