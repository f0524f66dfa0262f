"""The number of rollout workers of an elastic pool: the room of a cluster, and what successive looks decide."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from actors.config import RolloutConfig, WorkerRange
from archer.config.loading import config_from_tree
from archer.config.models import RunConfig
from archer.driver import elastic as module
from archer.driver.elastic import GROW_AFTER, SHRINK_AFTER, SizePolicy, elastic, look, room_for
from archer.driver.packing import total
from archer.errors import ConfigError


def _config(workers: Any, **rollout: Any) -> RunConfig:
    """Return a run with workers of 2 CPUs, one rank of 1 CPU, and replay that reserves nothing."""
    tree = {
        "model": {"path": "gpt2"},
        "env": {"id": "key_door"},
        "rollout": {"workers": workers, "cpus_per_worker": 2, **rollout},
        "replay": {"cpus_per_shard": 0},
    }
    return RunConfig.model_validate(tree)


RANGE = {"min": 1, "max": 8}


def test_a_number_stays_a_number_and_a_range_starts_with_its_least() -> None:
    assert (RolloutConfig(workers=3).least_workers, RolloutConfig(workers=3).most_workers) == (3, 3)
    found = _config({"min": 2, "max": 5}).rollout
    assert (found.workers, found.least_workers, found.most_workers) == (WorkerRange(min=2, max=5), 2, 5)
    assert total(_config({"min": 2, "max": 5}), "CPU") == 2 * 2 + 1


@pytest.mark.parametrize(
    ("workers", "message"),
    [
        (0, r"`rollout\.workers` is 0: it must be a whole number >= 1"),
        ("many", r"`rollout\.workers` is 'many': it must be a whole number >= 1"),
        ({"min": 3, "max": 2}, r"min 3, more than max 2"),
        ({"min": 1}, r"`rollout\.workers\.max` is missing"),
        ({"min": 1, "max": 2, "most": 3}, r"unknown key `rollout\.workers\.most`"),
        (True, r"`rollout\.workers` is true"),
    ],
)
def test_other_values_are_refused(workers: Any, message: str) -> None:
    tree = {"model": {"path": "gpt2"}, "env": {"id": "key_door"}, "rollout": {"workers": workers}}
    with pytest.raises(ConfigError, match=message):
        config_from_tree(tree, source="the test", check=False)


def _nodes(*cpus: float) -> list[dict[str, float]]:
    return [{"CPU": amount} for amount in cpus]


@pytest.mark.parametrize(
    ("placed", "nodes", "free", "room"),
    [
        (1, [3], [0], 1),  # one worker and the rank fill the node
        (1, [3, 4], [0, 4], 3),  # a node has joined
        (3, [3], [0], 1),  # it has left, and the pool has not noticed its workers yet
        (1, [3, 4], [0, 1], 1),  # it has joined, and others use it
        (1, [3, 1], [0, 1], 1),  # a process needs its CPUs on one node
        (0, [2, 2, 2], [2, 2, 2], 2),  # the rank has no process now, and keeps its room
        (1, [100], [97], 8),  # never more than max
        (0, [1], [1], 0),  # not even one
    ],
)
def test_the_room_is_what_the_packing_of_the_start_places(
    placed: int, nodes: list[float], free: list[float], room: int
) -> None:
    assert room_for(_config(RANGE), placed, _nodes(*nodes), _nodes(*free)) == room


def test_workers_that_reserve_nothing_have_room_everywhere() -> None:
    assert room_for(_config(RANGE, cpus_per_worker=0), 1, _nodes(1), _nodes(0)) == 8


def _decisions(policy: SizePolicy, wanted: int, rooms: list[int]) -> list[int]:
    found = []
    for room in rooms:
        wanted = policy.decide(wanted, room)
        found.append(wanted)
    return found


def test_growth_needs_looks_in_a_row_and_takes_what_all_of_them_allow() -> None:
    assert _decisions(SizePolicy(1, 8), 2, [5, 4, 6]) == [2, 2, 4]
    assert GROW_AFTER == 3


def test_a_moment_of_less_or_more_room_changes_nothing() -> None:
    assert _decisions(SizePolicy(1, 8), 2, [5, 5, 2, 5, 5, 1, 5, 5, 5]) == [2] * 8 + [5]
    away = [1] * (SHRINK_AFTER - 1)
    assert _decisions(SizePolicy(1, 8), 3, [*away, 3, *away]) == [3] * (2 * SHRINK_AFTER - 1)


def test_it_shrinks_when_a_node_stays_away_and_never_leaves_its_bounds() -> None:
    assert _decisions(SizePolicy(1, 8), 4, [2, 1, 2, 1, 1, 1])[-2:] == [4, 2]
    assert _decisions(SizePolicy(3, 8), 4, [0] * SHRINK_AFTER)[-1] == 3
    assert _decisions(SizePolicy(3, 5), 4, [99] * GROW_AFTER)[-1] == 5


class _Pool:
    """Remembers its size. A worker has a process at once."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def size(self) -> tuple[int, int]:
        return self.workers, self.workers

    def resize(self, workers: int) -> None:
        self.workers = workers


def test_the_pool_follows_nodes_that_join_and_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster of a node with the rank and one worker, and from time to time another one with room for three."""
    config, pool, policy, changes = _config(RANGE), _Pool(1), SizePolicy(1, 8), []
    joined: list[bool] = []

    def resources() -> Any:
        used = 2 * (pool.workers - 1)
        return (_nodes(3, 6), _nodes(0, max(6 - used, 0))) if joined[-1] else (_nodes(3), _nodes(0))

    monkeypatch.setattr(module, "cluster_resources", resources)
    seen = []
    for present in [False] * 3 + [True] * 6 + [False] * 8:
        joined.append(present)
        look(config, pool, policy, lambda before, after: changes.append((before, after)))  # type: ignore[arg-type]
        seen.append(pool.workers)
    assert changes == [(1, 4), (4, 1)]
    assert seen == [1] * (3 + GROW_AFTER - 1) + [4] * (6 - GROW_AFTER + 1 + SHRINK_AFTER - 1) + [1] * 3


def test_a_fixed_number_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_request", lambda wanted: pytest.fail("asked the autoscaler"))
    pool = _Pool(2)
    with elastic(_config(2), pool, lambda before, after: None):  # type: ignore[arg-type]
        assert "elastic" not in {thread.name for thread in threading.enumerate()}, "nothing follows the cluster"
    assert pool.workers == 2


@pytest.mark.slow
def test_a_real_cluster_is_followed(tmp_path: Path) -> None:
    """Two nodes of Ray: 3 CPUs hold the rank's one and a worker of two; 5 CPUs hold two workers more."""
    run = subprocess.run(
        [sys.executable, Path(__file__).with_name("elastic_nodes.py")],
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        | {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "RAY_raylet_start_wait_time_s": "150"},
        capture_output=True,
        text=True,
        timeout=500,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1] == "1 -> 3, 3 -> 1"
