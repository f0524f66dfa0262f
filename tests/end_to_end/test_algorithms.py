"""Every way to learn that has a loop of its own, by its one field, on the real stack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from loop_cases import archer, write_config

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]

SECTIONS: dict[str, Any] = {
    "cpus_per_rank": 0.5,
    "offline": {"unit": "episode", "batch": 4, "steps_per_cycle": 2},
    "filtered_bc": {"steps_per_cycle": 2, "batch": 4, "best": 0.5},
    "ppo": {"batch": 4, "epochs": 2, "lr": 1e-3, "value_lr": 1e-3},
    "grpo": {"batch": 4, "group": 4, "lr": 1e-3, "kl_to_clone": 0.01},
    "chai": {"candidates": 2},
}

# Policy, critic, target and reference as adapters on the clone, of which two ranks hold half each.
LORA: dict[str, Any] = {
    "ranks": 2,
    "zero_stage": 3,
    "lora": {"rank": 4},
    "critic": {"build": None},
    "actor": {"kl_to_clone": 0.01},
}


@pytest.mark.parametrize(
    ("algorithm", "changes", "metric", "version"),
    [
        # The clone is version 1; each cycle whose policy has learnt adds one.
        ("archer", {"offline_cycles": 1, "mode": "async", "learner": LORA}, "actor/advantage", 3),
        ("chai", {}, "critic/q_loss", 1),
        ("filtered_bc", {}, "actor/token_nll", 3),
        ("grpo", {}, "actor/kl_to_clone", 3),
        ("ppo", {}, "actor/value_loss", 3),
    ],
)
def test_algorithm_runs_by_its_name(
    tmp_path: Path, algorithm: str, changes: dict[str, Any], metric: str, version: int
) -> None:
    learner = SECTIONS | changes.pop("learner", {})
    config = write_config(tmp_path, algorithm=algorithm, learner=learner, replay={"shards": 1}, **changes)
    with archer(tmp_path, "train", str(config)) as run:
        assert run.finish() == 0, run.output
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["cycles"] == 2
    assert summary["policy_version"] == version
    assert summary["proof_max_gap"] < 1e-3
    rows = run.rows("cycle")
    assert all(metric in row["metrics"] for row in rows)
    offline = changes.get("offline_cycles", 0)
    if algorithm == "archer":
        assert (run.folder / "checkpoints" / "cycle-00002" / "adapter" / "adapter_model.safetensors").is_file()
    assert ["return" in row["metrics"] for row in rows] == [False] * offline + [True] * (2 - offline)
