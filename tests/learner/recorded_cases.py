"""Losses of twenty steps of every algorithm, recorded once, so that a rewrite that changes one of them is noticed.

To record them again, after a change that is meant to change losses:

    OMP_NUM_THREADS=1 .venv/bin/python tests/learner/recorded_cases.py tests/learner/recorded_losses.json
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from algorithm_cases import RECIPE

STEPS = 20
RECORDED = Path(__file__).with_name("recorded_losses.json")
DIGITS = 8
"""Significant digits in the file; a float32 has seven."""


@dataclass(frozen=True)
class Case:
    """An algorithm with its settings.

    Attributes:
        changes: laid over `algorithm_cases.LEARNER`.
        version: policy version of the steps. The rows' tokens have version 1.
        weighted: whether the samples have weights, as prioritised draws have.
    """

    algorithm: str
    changes: dict[str, Any] = field(default_factory=dict)
    version: int = 1
    weighted: bool = False


CASES = {
    "archer": Case("archer"),
    "archer, one-step": Case("archer", {"critic": {"n_step": 1, "fresh_per_state": 1}}),
    "archer, lambda": Case("archer", {"critic": {"n_step": 3, "lambda_turn": 0.5, "heads": 3}}),
    "archer, token baseline": Case("archer", {"actor": {"token_baseline": True, "normalise_advantage": False}}),
    "archer, prioritised": Case("archer", {"critic": {"sampler": "prioritised"}}, weighted=True),
    "archer, clip": Case("archer", {"actor": {"clip": 0.2, "kl_to_clone": 0.1}}, version=2),
    "archer, older actions": Case("archer", {"actor": {"importance_cap": 2.0}}, version=2),
    "archer, offline first": Case("archer", {"offline_cycles": 2}),
    "archer_offline": Case("archer_offline"),
    "chai": Case("chai"),
    "filtered_bc": Case("filtered_bc"),
    "bc": Case("bc"),
    "ppo": Case("ppo"),
    "ppo, warm-up": Case("ppo", {"ppo": {"warmup_cycles": 3}}),
    "reinforce": Case("reinforce"),
    "grpo": Case("grpo"),
    "archer, recipe": Case("archer", RECIPE),
    "archer, adapters": Case("archer", {"lora": {"rank": 4}, "actor": {"kl_to_clone": 0.1}}),
}


def losses(case: Case) -> list[dict[str, float]]:
    """Every metric of each of the first `STEPS` steps, with the mean of the TD errors where there are any."""
    from algorithm_cases import episodes, make_algorithm, run_cycle

    algorithm: Any = make_algorithm(case.algorithm, **case.changes)  # type: ignore[arg-type]
    found: list[dict[str, float]] = []
    step = algorithm.step

    def recording(phase: Any, micro_batches: Any, samples: int, version: int) -> Any:
        result = step(phase, micro_batches, samples, version=case.version)
        errors = {"td_errors": float(np.concatenate(result.td_errors).mean())} if len(result.td_errors) else {}
        found.append(result.metrics | errors)
        return result

    def weigh(rows: list[Any]) -> list[Any]:
        return [replace(row, weights=np.linspace(0.5, 1.0, len(row.turns), dtype=np.float32)) for row in rows]

    algorithm.step = recording
    cycle = 0
    while len(found) < STEPS:
        if case.algorithm == "bc":  # its steps come before the first cycle
            rows = episodes(cycle)
            recording(algorithm.stage, [rows[:4], rows[4:]], sum(len(row.turns) for row in rows), 1)
        else:
            run_cycle(algorithm, cycle, split=weigh if case.weighted else None)
        cycle += 1
    return found[:STEPS]


def record(path: Path, digits: int) -> None:
    """Write the losses of all cases to `path`, one step a line."""
    parts = []
    for name, case in CASES.items():
        steps = [{key: float(f"{value:.{digits}g}") for key, value in step.items()} for step in losses(case)]
        lines = ",\n".join(json.dumps(step, sort_keys=True) for step in steps)
        parts.append(f"{json.dumps(name)}: [\n{lines}\n]")
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def _main(path: str, digits: int) -> None:
    """Record in a process group of one."""
    import os
    import tempfile

    import torch
    import torch.distributed as dist

    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "DS_ACCELERATOR": "cpu"}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        record(Path(path), digits)
        dist.destroy_process_group()


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else DIGITS)
