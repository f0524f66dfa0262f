"""The same numbers on one rank and two, at ZeRO 0 to 3, and after a resume, whatever the algorithm.

At ZeRO-3 the optimizer also steps on the host's side of DeepSpeed (`optimizer_offload`), which must change nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learner_cases import run_ranks

CYCLES = 3
CASES: list[tuple[str, dict[str, Any]]] = [
    ("archer", {}),
    (
        "archer",
        {
            "offline_cycles": 2,
            "actor": {"token_baseline": True, "kl_to_clone": 0.1},
            "critic": {"heads": 3, "lambda_turn": 0.5},
        },
    ),
    # Policy, critic, target and reference on one base; the base is also partitioned once, at ZeRO-3.
    ("archer", {"lora": {"rank": 4}, "actor": {"kl_to_clone": 0.1}, "critic": {"backbones": "apart"}}),
    ("ppo", {"lora": {"rank": 4}, "activation_checkpointing": True}),
    ("archer_offline", {}),
    ("chai", {}),
    ("filtered_bc", {}),
    ("ppo", {}),
    ("reinforce", {}),
    ("grpo", {}),
]


def _train(rank: int, out: Path, stage: int, resume_at: int | None) -> None:
    from algorithm_cases import make_algorithm, run_cycle

    ranks = torch.distributed.get_world_size()
    losses = []
    for index, (name, changes) in enumerate(CASES):
        settings = {"zero_stage": stage, "optimizer_offload": stage == 3} | changes
        algorithm = make_algorithm(name, **settings)
        for cycle in range(CYCLES):
            if cycle == resume_at:
                saved = out / f"saved-{index}"
                if rank == 0:
                    saved.mkdir()
                torch.distributed.barrier()
                algorithm.save(saved)
                algorithm = make_algorithm(name, **settings)
                algorithm.load(saved)
            losses.append(run_cycle(algorithm, cycle, rank, ranks))
    if rank == 0:
        (out / "losses.json").write_text(json.dumps(losses))


def _losses(tmp_path: Path, ranks: int, stage: int, resume_at: int | None = None) -> list[list[list[float]]]:
    """For each case and cycle the metrics of each step."""
    out = tmp_path / f"ranks-{ranks}-stage-{stage}-{resume_at}"
    out.mkdir()
    run_ranks(ranks, _train, out, stage, resume_at)
    return json.loads((out / "losses.json").read_text())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ranks_and_stages_and_resume_give_the_same_losses(tmp_path: Path) -> None:
    reference = _losses(tmp_path, 1, 0)
    for ranks, stage, resume_at in [(1, 0, 1), (2, 2, None), (2, 3, 2)]:
        other = _losses(tmp_path, ranks, stage, resume_at)
        for index, (mine, theirs) in enumerate(zip(reference, other, strict=True)):
            case, cycle = CASES[index // CYCLES], index % CYCLES
            said = f"{case}, cycle {cycle}, {ranks} ranks, stage {stage}"
            for step, (a, b) in enumerate(zip(mine, theirs, strict=True)):
                np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4, err_msg=f"{said}, step {step}")
