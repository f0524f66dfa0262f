"""The resources that a run reserves; Ray clusters that do not answer, or have no room."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from archer.config.models import RunConfig
from archer.driver.board import BoardFollower, start_board
from archer.driver.cluster import (
    _connect,
    _require_room,
    _time_limit,
    _TimeLimit,
    _total,
)
from archer.driver.learner_job import train
from archer.errors import RunError
from learner.train_args import TrainArgs


def _config(**sections: Any) -> RunConfig:
    return RunConfig.model_validate({"model": {"path": "gpt2"}, "env": {"id": "key_door"}, **sections})


def test_own_cluster_has_room_for_the_fractions_of_the_replay() -> None:
    """One worker, one rank and hundredths for the replay: with two CPUs one of them would wait forever."""
    assert math.ceil(_total(_config(), "CPU")) == 3
    assert _total(_config(replay={"cpus_per_shard": 0.0}), "CPU") == 2


def test_one_cluster_has_room_for_each_of_several_configurations() -> None:
    code = (
        "import ray; from archer.config.loading import load_config; from archer.driver.cluster import cluster\n"
        "configs = [load_config('demo', [text]) for text in ('cluster.num_cpus=4', 'rollout.workers=5')]\n"
        "with cluster(*configs): print(ray.cluster_resources()['CPU'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert float(run.stdout.splitlines()[-1]) == 7  # five workers, one rank, and replay


def test_cluster_that_is_too_small_is_refused_at_once(ray_cluster: None) -> None:
    import ray

    have = int(ray.cluster_resources()["CPU"])
    message = rf"no room for {have} x rollout worker \(1 CPU\), 1 x learner rank.*\. Its nodes have \[{have} CPU\]"
    with pytest.raises(RunError, match=message):
        _require_room(_config(rollout={"workers": have}))
    _require_room(_config(rollout={"workers": have - 2}))


@pytest.fixture
def four_cpus_are_taken(ray_cluster: None) -> Iterator[None]:
    import ray

    class Holder:
        def ready(self) -> None: ...

    holder = ray.remote(Holder).options(num_cpus=ray.cluster_resources()["CPU"] - 4).remote()
    ray.get(holder.ready.remote(), timeout=60)
    yield
    ray.kill(holder)


def test_cluster_without_free_room_is_refused_after_the_start_timeout(four_cpus_are_taken: None) -> None:
    limit = {"start_timeout_s": 1.0}
    _require_room(_config(cluster=limit, rollout={"cpus_per_worker": 2.5}))
    with pytest.raises(
        RunError, match=r"no room for 1 x rollout worker \(3.5 CPU\), 1 x learner rank.*after 1 s.*are free"
    ):
        _require_room(_config(cluster=limit, rollout={"cpus_per_worker": 3.5}))


def test_ranks_without_room_end_the_run_after_the_start_timeout(four_cpus_are_taken: None, tmp_path: Path) -> None:
    config = _config(cluster={"start_timeout_s": 2.0}, learner={"ranks": 5})
    unused: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(TrainArgs))
    args = TrainArgs(**{**unused, "learner": config.learner, "run_dir": tmp_path})
    with (
        BoardFollower(start_board(), lambda event: None) as follower,
        pytest.raises(RunError, match=r"no room for the 5 ranks of the learner within cluster\.start_timeout_s"),
    ):
        train(config, args, follower, "http://127.0.0.1:0")


def test_address_without_a_listener_is_refused_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(
        RunError, match=rf"cannot join the Ray cluster at {address}: connection failed.*ray start --head.*RAY_ADDRESS"
    ):
        _connect(_config(cluster={"address": address}))


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "nonsense", "127.0.0.1:port"])
def test_malformed_address_is_refused(address: str) -> None:
    assert re.search(rf"RunError: cannot join the Ray cluster at {address}: \w", _error(address))


def test_cluster_that_does_not_answer_is_refused_after_the_start_timeout() -> None:
    """A stopped process accepts connections and never answers. Ray alone would retry for nine minutes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        error = _error(address)
    assert error == (
        f"archer.errors.RunError: cannot join the Ray cluster at {address}: no answer within 3 s "
        "(cluster.start_timeout_s); start one with `ray start --head`, or unset cluster.address and RAY_ADDRESS to use "
        "this machine alone. If the cluster requires a token, set RAY_AUTH_MODE=token"
    )


def _error(address: str) -> str:
    """Return the last line of the traceback of a process that has RAY_ADDRESS set and joins the cluster."""
    code = (
        "from archer.config.loading import load_config; from archer.driver.cluster import cluster\n"
        "with cluster(load_config('demo', ['cluster.start_timeout_s=3'])): pass"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"RAY_ADDRESS": address},
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert run.returncode == 1, run.stdout + run.stderr
    return run.stderr.strip().splitlines()[-1]


def test_time_limit_ends_a_loop_that_catches_every_exception() -> None:
    def retry_forever() -> None:
        while True:
            try:
                time.sleep(60)
            except Exception:  # noqa: BLE001 - as Ray does
                continue

    with pytest.raises(_TimeLimit), _time_limit(0.1):
        retry_forever()
    with _time_limit(60.0):
        pass


def test_ray_train_asks_the_api_server_of_its_own_cluster() -> None:
    """If a server of another cluster reports the controller as dead, Ray Train ends the ranks of the run."""
    run = subprocess.run(
        [sys.executable, Path(__file__).with_name("two_clusters.py")],
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    # This is the answer of the other cluster, which shows that the guard is necessary.
    assert "the other's: dead" in run.stdout
    assert "the run's: alive or unknown" in run.stdout
