"""What a run reserves of a Ray cluster, and a cluster that has no room for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from archer.config.models import RunConfig
from archer.driver.cluster import _require_resources, needed_cpus
from archer.errors import RunError


def _config(**sections: Any) -> RunConfig:
    return RunConfig.model_validate({"model": {"path": "gpt2"}, "env": {"id": "key_door"}, **sections})


def test_a_cluster_of_its_own_has_room_for_the_smallest_share() -> None:
    """One worker, one rank and the replay's hundredths: two CPUs would leave one of them waiting for ever."""
    assert needed_cpus(_config()) == 3
    assert needed_cpus(_config(replay={"cpus_per_shard": 0.0})) == 2


def test_a_cluster_without_room_is_refused_with_numbers(ray_cluster: None) -> None:
    import ray

    have = int(ray.cluster_resources()["CPU"])
    with pytest.raises(RunError, match=rf"reserves {have + 0.03:g} CPUs and the Ray cluster has {have:g}.*num_cpus"):
        _require_resources(_config(rollout={"workers": have - 1}))
    _require_resources(_config(rollout={"workers": have - 2}))


def test_another_cluster_on_the_machine_is_not_asked_whether_ours_lives() -> None:
    """Ray Train would end the ranks of a run where it is told that its controller is dead."""
    run = subprocess.run(
        [sys.executable, Path(__file__).with_name("two_clusters.py")],
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    # Which Ray comes to by itself, and shows that there is something to guard against.
    assert "the other's: dead" in run.stdout
    assert "the run's: alive or unknown" in run.stdout
