"""Algorithms, selected by the field `algorithm`, on the real stack.

The others run beside something else, so that no stack starts for them alone: PPO in test_window.py, GRPO in
test_job.py, filtered cloning in test_tools.py, REINFORCE in test_thoughts.py, ArCHer with adapters in test_loop.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from loop_cases import ALGORITHMS, archer, assert_trained, record_episodes, write_config

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]

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
        ("archer", {"offline_cycles": 1, "mode": "async", "learner": RECIPE}, "actor/moved", 3),
        ("archer_offline", {"offline_cycles": 2}, "actor/advantage", 3),
        ("bc", {}, "return", 1),
        # No cycle broadcasts, and the rollouts play on with the same version.
        ("chai", {"mode": "async", "max_staleness": 0}, "critic/q_loss", 1),
    ],
)
def test_algorithm_runs_by_its_name(
    cluster_address: str, tmp_path: Path, algorithm: str, changes: dict[str, Any], metric: str, version: int
) -> None:
    changes = dict(changes)
    learner = ALGORITHMS | changes.pop("learner", {})
    if algorithm == "archer":
        changes["demonstrations"] = {"episodes": 0, "files": [str(record_episodes(tmp_path))]}
    config = write_config(tmp_path, algorithm=algorithm, learner=learner, replay={"shards": 1}, **changes)
    with archer(tmp_path, "train", str(config), RAY_ADDRESS=cluster_address) as run:
        assert run.finish() == 0, run.output
    assert_trained(run.folder, metric, cycles=2, version=version, offline=changes.get("offline_cycles", 0))
