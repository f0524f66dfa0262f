"""Each algorithm, selected by the field `algorithm`, on the real stack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import ray
from loop_cases import archer, write_config

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]

SECTIONS: dict[str, Any] = {
    "cpus_per_rank": 0.5,
    "offline": {"unit": "episode", "batch": 4, "steps_per_cycle": 2},
    "filtered_bc": {"steps_per_cycle": 2, "batch": 4, "best": 0.5},
    "ppo": {"batch": 4, "epochs": 2, "lr": 1e-3, "value_lr": 1e-3},
    "reinforce": {"batch": 4, "lr": 1e-3},
    "grpo": {"batch": 4, "group": 4, "lr": 1e-3, "kl_to_clone": 0.01},
    "chai": {"candidates": 2},
}

# Policy, critic, target and reference are adapters on the clone; each of two ranks holds half of them.
LORA: dict[str, Any] = {
    "ranks": 2,
    "zero_stage": 3,
    "lora": {"rank": 4},
    "critic": {"build": None},
    "actor": {"kl_to_clone": 0.01},
}

# V from fresh actions, Retrace on demonstrations and new episodes, and the actor that regresses onto its improvement.
RECIPE: dict[str, Any] = {
    "clone": {"observation_weight": 1.0},
    "critic": {"value": "fresh", "retrace": 0.9, "n_step": 1, "unit": "episode", "batch": 4, "recent_share": 0.5},
    "actor": {"objective": "improvement", "unit": "episode", "batch": 4, "fresh_per_state": 3, "recent_share": 0.5},
}


@pytest.mark.parametrize(
    ("algorithm", "changes", "metric", "version"),
    [
        # The clone is version 1; each cycle that trains the policy adds one. `archer` starts with imported data.
        ("archer", {"offline_cycles": 1, "mode": "async", "learner": LORA}, "actor/advantage", 3),
        ("archer", {"offline_cycles": 1, "mode": "async", "learner": RECIPE}, "actor/moved", 3),
        ("archer_offline", {"offline_cycles": 2}, "actor/advantage", 3),
        ("bc", {}, "return", 1),
        # No cycle broadcasts, and the rollouts play on with the same version.
        ("chai", {"mode": "async", "max_staleness": 0}, "critic/q_loss", 1),
        ("filtered_bc", {}, "actor/token_nll", 3),
        ("grpo", {}, "actor/kl_to_clone", 3),
        ("ppo", {}, "actor/value_loss", 3),
        ("reinforce", {}, "actor/loss", 3),
    ],
)
def test_algorithm_runs_by_its_name(
    ray_cluster: None, tmp_path: Path, algorithm: str, changes: dict[str, Any], metric: str, version: int
) -> None:
    """The runs join one cluster. That a run starts its own, and ends it, is tested in test_loop.py."""
    changes = dict(changes)
    learner = SECTIONS | changes.pop("learner", {})
    if algorithm == "archer":
        changes["demonstrations"] = {"episodes": 0, "files": [str(_episodes(tmp_path))]}
    config = write_config(tmp_path, algorithm=algorithm, learner=learner, replay={"shards": 1}, **changes)
    address = ray.get_runtime_context().gcs_address
    with archer(tmp_path, "train", str(config), RAY_ADDRESS=address) as run:
        assert run.finish() == 0, run.output
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["cycles"] == 2
    assert summary["policy_version"] == version
    assert summary["proof_max_gap"] < 1e-3
    rows = run.rows("cycle")
    assert all(metric in row["metrics"] for row in rows)
    offline = changes.get("offline_cycles", 0)
    assert len(rows) == 2
    if "lora" in learner:
        assert (run.folder / "checkpoints" / "cycle-00002" / "adapter" / "adapter_model.safetensors").is_file()
    assert ["return" in row["metrics"] for row in rows] == [False] * offline + [True] * (2 - offline)


def _episodes(folder: Path) -> Path:
    """Return a Parquet file of scripted episodes to import."""
    out = folder / "data"
    wanted = ("twenty_questions_subset", "--episodes", "32", "--skill", "0.3", "--out", str(out))
    with archer(folder, "record", *wanted) as run:
        assert run.finish() == 0, run.output
    return out / "episodes.parquet"
