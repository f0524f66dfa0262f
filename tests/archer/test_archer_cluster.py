"""The resources that a run reserves; Ray clusters that do not answer, or have no room."""

from __future__ import annotations

import dataclasses
import json
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
    _time_limit,
    _TimeLimit,
)
from archer.driver.learner_job import train
from archer.driver.packing import packs, total
from archer.driver.room import require_room
from archer.errors import RunError
from learner.train_args import TrainArgs


def _config(**sections: Any) -> RunConfig:
    return RunConfig.model_validate({"model": {"path": "gpt2"}, "env": {"id": "key_door"}, **sections})


def test_own_cluster_has_room_for_the_fractions_of_the_replay() -> None:
    """One worker, one rank and hundredths for the replay: with two CPUs one of them would wait forever."""
    assert math.ceil(total(_config(), "CPU")) == 3
    assert total(_config(replay={"cpus_per_shard": 0.0}), "CPU") == 2


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
        require_room(_config(rollout={"workers": have}))
    require_room(_config(rollout={"workers": have - 2}))


@pytest.mark.parametrize(
    ("bundles", "nodes", "fits"),
    [
        ([2, 3], [1, 4, 1], False),  # six CPUs for five, but no node has room for the second process
        ([2, 3], [1, 4, 2], True),
        ([2, 2, 2, 3, 3], [6, 6], True),  # the largest first: 3 + 3 and 2 + 2 + 2
        ([3, 3, 3], [5, 5], False),
        ([0.5] * 9, [4], False),
        ([0.01] * 100, [1], True),
        ([], [1], True),
        ([1.5] * 40, [4] * 20, True),
        ([2.5] * 40, [4] * 39 + [2] * 9, False),
        ([1] * 900, [450, 449], False),
        ([1] * 900, [450, 450], True),
    ],
)
def test_processes_are_packed_on_nodes(bundles: list[float], nodes: list[float], fits: bool) -> None:
    assert packs([{"CPU": amount} for amount in bundles], [{"CPU": amount} for amount in nodes]) is fits


def test_gpus_and_cpus_of_a_process_are_on_one_node() -> None:
    nodes = [{"CPU": 8.0}, {"CPU": 1.0, "GPU": 1.0, "memory": 1e9}]
    assert packs([{"CPU": 1.0, "GPU": 1.0}, {"CPU": 8.0}], nodes)
    assert not packs([{"CPU": 2.0, "GPU": 1.0}], nodes)


def test_nodes_that_could_never_hold_the_run_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The totals suffice. Ray would wait for ever, and the run used to wait for `cluster.start_timeout_s`."""
    nodes = [{"Alive": True, "Resources": {"CPU": amount}} for amount in (1.0, 4.0, 1.0)]
    monkeypatch.setattr("ray.nodes", lambda: [*nodes, {"Alive": False, "Resources": {"CPU": 9.0}}])
    monkeypatch.setattr("ray.available_resources", lambda: {"CPU": 6.0})
    monkeypatch.setattr("archer.driver.room._fits", lambda config: pytest.fail("waited"))
    config = _config(rollout={"cpus_per_worker": 3}, learner={"cpus_per_rank": 2}, replay={"cpus_per_shard": 0})
    expected = (
        r"no room for 1 x rollout worker \(3 CPU\), 1 x learner rank \(2 CPU\), 3 x replay process \(0 CPU\)\. Its "
        r"nodes have \[1 CPU\], \[4 CPU\], \[1 CPU\], and 6 CPU are free; each process needs its resources on one node"
    )
    with pytest.raises(RunError, match=expected):
        require_room(config)


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
    require_room(_config(cluster=limit, rollout={"cpus_per_worker": 2.5}))
    with pytest.raises(
        RunError, match=r"no room for 1 x rollout worker \(3.5 CPU\), 1 x learner rank.*after 1 s.*are free"
    ):
        require_room(_config(cluster=limit, rollout={"cpus_per_worker": 3.5}))


def test_ranks_without_room_end_the_run_after_the_start_timeout(four_cpus_are_taken: None, tmp_path: Path) -> None:
    config = _config(cluster={"start_timeout_s": 2.0}, learner={"ranks": 5})
    unused: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(TrainArgs))
    args = TrainArgs(**{**unused, "learner": config.learner, "run_dir": tmp_path})
    with (
        BoardFollower(start_board(), lambda event: None) as follower,
        pytest.raises(RunError, match=r"no room for the 5 ranks of the learner within cluster\.start_timeout_s"),
    ):
        train(config, args, follower)


def test_address_without_a_listener_is_refused_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(
        RunError, match=rf"cannot join the Ray cluster at {address}: connection failed.*ray start --head.*RAY_ADDRESS"
    ):
        _connect(_config(cluster={"address": address}))


def test_addresses_that_cannot_be_joined_are_refused() -> None:
    """A stopped process accepts connections and never answers. Ray alone would retry for nine minutes."""
    malformed = ["http://127.0.0.1:8265", "nonsense", "127.0.0.1:port"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        silent = f"127.0.0.1:{server.getsockname()[1]}"
        errors = _errors([*malformed, silent])
    for address in malformed:
        assert re.match(rf"cannot join the Ray cluster at {address}: \w", errors[address])
    assert errors[silent] == (
        f"cannot join the Ray cluster at {silent}: no answer within 3 s "
        "(cluster.start_timeout_s); start one with `ray start --head`, or unset cluster.address and RAY_ADDRESS to use "
        "this machine alone. If the cluster requires a token, set RAY_AUTH_MODE=token"
    )


def test_the_last_cluster_of_the_machine_may_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` is the address in a file, which outlives its cluster."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", set)
    monkeypatch.setattr("ray._private.services.find_bootstrap_address", lambda folder: address)
    with pytest.raises(RunError, match=r"cannot join the Ray cluster at auto: connection failed"):
        _connect(_config(cluster={"address": "auto"}))


def test_a_node_that_starts_too_late_for_ray_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray raises an Exception without a class of its own after 30 s, and leaves the processes that it has started."""
    started: list[subprocess.Popen[bytes]] = []

    def init(**_: Any) -> None:
        started.append(subprocess.Popen(["sleep", "60"]))
        if len(started) < 3:
            raise Exception("The current node timed out during startup.\nThis could happen because ...")

    monkeypatch.setattr("ray.init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    try:
        _connect(_config())
        assert [process.wait(10) for process in started[:2]] == [-9, -9]
        assert started[2].poll() is None
    finally:
        started[-1].kill()
        started[-1].wait()


def test_another_bare_exception_of_ray_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise Exception("The GCS cannot bind its port.\nMore lines.")

    monkeypatch.setattr("ray.init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(RunError, match=r"^Ray did not start on this machine: The GCS cannot bind its port\.; see "):
        _connect(_config())


def _errors(addresses: list[str]) -> dict[str, str]:
    """Return the error of joining the cluster at each address, by RAY_ADDRESS, in a process without a cluster."""
    code = (
        "import json, os, sys\n"
        "from archer.config.loading import load_config\n"
        "from archer.driver.cluster import cluster\n"
        "from archer.errors import RunError\n"
        "errors = {}\n"
        "for address in sys.argv[1:]:\n"
        "    os.environ['RAY_ADDRESS'] = address\n"
        "    try:\n"
        "        with cluster(load_config('demo', ['cluster.start_timeout_s=3'])): pass\n"
        "    except RunError as error: errors[address] = str(error)\n"
        "print(json.dumps(errors))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *addresses],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert run.returncode == 0, run.stdout + run.stderr
    errors: dict[str, str] = json.loads(run.stdout.splitlines()[-1])
    assert set(errors) == set(addresses)
    return errors


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
