"""A run whose learner, engine and shard are on three hosts without GPUs, one of which is cut off and returns.

Each host is a set of Linux namespaces (`network_hosts`): it shares neither network nor processes nor memory with the
others, so that weights reach the engine as a stream only.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from loop_cases import Run, assert_trained, write_config
from network_hosts import CannotMakeHosts, Hosts, hosts, wait_for_line

from buffer.archive import read_archive

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]

BIN = Path(sys.executable).parent
HEAD = "10.77.0.1:6379"
QUICK = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""Ray declares a host lost after about nine seconds instead of half a minute."""
# Prints a line when Ray has lost a node.
WATCH = """
import time, ray
ray.init(log_to_driver=False)
print("watching", flush=True)
while all(node["Alive"] for node in ray.nodes()):
    time.sleep(0.2)
print("a node is lost", flush=True)
"""


class RayNode:
    """A node of the Ray cluster on a host, with a resource of the host's name."""

    def __init__(self, network: Hosts, name: str) -> None:
        self._network, self._name = network, name
        self._start()

    def _start(self) -> None:
        head = ("--head", "--port=6379", "--include-dashboard=false")
        self.process = self._network.start(
            self._name,
            *(BIN / "ray", "start", "--block", "--disable-usage-stats"),
            *(head if self._name == "learner" else (f"--address={HEAD}",)),
            *("--num-cpus=2", f"--resources={json.dumps({self._name: 8})}", "--object-store-memory=134217728"),
        )

    def wait(self, attempts: int = 4) -> None:
        """Wait until it has joined. Ray gives its processes 30 seconds, a constant, in which busy cores may not start
        them."""
        for left in reversed(range(attempts)):
            try:
                wait_for_line(self.process, "Ray runtime started", 300.0)
                return
            except AssertionError as error:
                if left == 0 or "timed out during startup" not in str(error):
                    raise
            self._start()


def test_a_run_on_three_hosts_goes_on_when_one_is_cut_off_and_returns(tmp_path: Path) -> None:
    """Broadcasts reach the engine's host as a stream and are proved; the shard's host is lost and joins again; every
    episode whose append was acknowledged is in replay at the end."""
    token = tmp_path / "token"
    token.write_text("a" * 64)
    environment = QUICK | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ADDRESS": HEAD,
    }
    try:
        with hosts(tmp_path, ("learner", "engine", "shard"), environment) as network:
            _train(network, tmp_path)
    except CannotMakeHosts as error:
        pytest.skip(f"this machine cannot make hosts: {error}")


def _train(network: Hosts, folder: Path) -> None:
    RayNode(network, "learner").wait()
    nodes = {name: RayNode(network, name) for name in ("engine", "shard")}
    for node in nodes.values():
        node.wait()
    config = write_config(
        folder,
        cycles=3,
        rollout={"resources": {"engine": 1}},
        learner={"resources": {"learner": 1}},
        replay={"resources": {"shard": 1}, "shards": 1},
        evaluation={"every": 0},
    )
    run = Run(network.start("learner", BIN / "archer", "train", config), folder / "runs" / "small", [])
    watch = network.start("learner", sys.executable, "-c", WATCH)
    wait_for_line(watch, "watching", 120.0)
    run.until(lambda line: line.startswith("cycle 1/3"))
    assert _hosts_of(run.folder) == {"learner": {"10.77.0.1"}, "rollout": {"10.77.0.2"}, "shard": {"10.77.0.3"}}
    network.cut("shard")
    wait_for_line(watch, "a node is lost", 120.0)
    network.mend("shard")
    # A node that Ray has given up ends by itself, and returns only if it is started again.
    nodes["shard"].process.wait(120)
    RayNode(network, "shard").wait()
    assert run.finish() == 0, run.output

    # Version 1 is the clone; each cycle adds one. None of them could reach the engine by shared memory.
    assert_trained(run.folder, "actor/loss", cycles=3, version=4)
    assert not run.rows("restart")
    kept = [name for batch in read_archive(run.folder) for name in batch["episode_id"].to_pylist()]
    assert len(kept) == len(set(kept))
    acknowledged = 32 + json.loads((run.folder / "summary.json").read_text())["episodes"]
    assert len(kept) == acknowledged


def _hosts_of(run_folder: Path) -> dict[str, set[str]]:
    """Return the addresses at which the processes of each role listen."""
    found: dict[str, set[str]] = {}
    for entry in json.loads((run_folder / "targets.json").read_text()):
        found.setdefault(entry["labels"]["role"], set()).add(entry["targets"][0].rpartition(":")[0])
    return {role: found[role] for role in ("learner", "rollout", "shard")}
