"""The same numbers on one rank and two, at ZeRO 0, 2 and 3, and after a resume."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from learner_cases import llama, make_row, run_ranks
from transformers import AutoModel, AutoModelForCausalLM

STEPS = 6


def _train(rank: int, out: Path, stage: int, resume_at: int | None) -> None:
    from learner.algorithms.archer import Archer
    from learner.algorithms.base import Phase
    from learner.config import LearnerConfig
    from learner.critic import Critic
    from learner.layout import PackedEncoder
    from learner.rows import deal

    config = LearnerConfig.model_validate(
        {
            "zero_stage": stage,
            "micro_batch": 2,
            "critic": {"lr": 1e-3, "n_step": 2},
            "actor": {"lr": 1e-3, "normalise_advantage": True},
        }
    )

    def build() -> Archer:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(llama(tie_word_embeddings=True))
        critic = Critic(AutoModel.from_config(llama()), 16)
        return Archer(model, critic, PackedEncoder(0), 0, config, temperature=0.9)

    algorithm = build()
    ranks = torch.distributed.get_world_size()
    losses = []
    phases = [Phase("critic", STEPS, 8, "episode", fresh=2), Phase("actor", STEPS, 8, "episode", fresh=2)]
    for step in range(STEPS):
        if step == resume_at:
            if rank == 0:
                (out / "saved").mkdir()
            torch.distributed.barrier()
            algorithm.save(out / "saved")
            algorithm = build()
            algorithm.load(out / "saved")
        rows = [make_row(100 * step + i) for i in range(8)]
        samples = sum(len(row.turns) for row in rows)
        share = deal(rows, ranks, config.micro_batch)[rank]
        for phase in phases:
            result = algorithm.step(phase, share, samples, version=1)
            losses.append([result.metrics[k] for k in sorted(result.metrics)])
    if rank == 0:
        (out / "losses.json").write_text(json.dumps(losses))


def _losses(tmp_path: Path, ranks: int, stage: int, resume_at: int | None = None) -> np.ndarray:
    out = tmp_path / f"ranks-{ranks}-stage-{stage}-{resume_at}"
    out.mkdir()
    run_ranks(ranks, _train, out, stage, resume_at)
    return np.array(json.loads((out / "losses.json").read_text()))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ranks_and_stages_and_resume_give_the_same_losses(tmp_path: Path) -> None:
    reference = _losses(tmp_path, 1, 0)
    assert np.abs(reference[2:] - reference[:-2]).max() > 1e-3, "nothing was learnt, so nothing was compared"
    for ranks, stage, resume_at in [(1, 0, 3), (2, 2, None), (2, 3, 3)]:
        other = _losses(tmp_path, ranks, stage, resume_at)
        np.testing.assert_allclose(other, reference, rtol=2e-3, atol=2e-4, err_msg=f"{ranks} ranks, stage {stage}")
