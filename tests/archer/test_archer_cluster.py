"""What a run reserves of a Ray cluster, and a cluster that has no room for it."""

from __future__ import annotations

from typing import Any

import pytest

from archer.cluster import _require_resources, needed_cpus
from archer.config import RunConfig
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
