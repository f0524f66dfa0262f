"""A Ray cluster of several nodes that loses two of them, with their disks, while a writer appends.

`test_buffer_replication` runs it as its own process, because a driver can connect to one cluster only:
`python lost_nodes.py DIR`.
"""

import shutil
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster
from replay_cases import ids, inside, make_batch

from buffer.config import ReplayConfig
from buffer.errors import LogError, ReplayError
from buffer.service import ReplayService

CONFIG = ReplayConfig(shards=2, replication=2, local_dir="$NODE_DISK", timeout_s=120, segment_bytes=16 << 10)
QUICK = {"health_check_period_ms": 500, "health_check_timeout_ms": 1000, "health_check_failure_threshold": 4}
"""Ray declares a node lost after two seconds instead of half a minute."""
SMALL = {"object_store_memory": 80 << 20}


class Machines:
    """A cluster whose nodes have their own disks. No shard fits on the first node, which runs this driver."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": QUICK, **SMALL},
        )
        self.nodes = {}
        ray.init(address=self.cluster.address, log_to_driver=False)

    def add(self, name: str) -> None:
        disk = self.root / name
        disk.mkdir()
        self.nodes[name] = self.cluster.add_node(num_cpus=1, env_vars={"NODE_DISK": str(disk)}, **SMALL)

    def lose(self, name: str) -> None:
        node = self.nodes.pop(name)
        processes = psutil.Process(node.all_processes["raylet"][0].process.pid).children(recursive=True)
        self.cluster.remove_node(node, allow_graceful=False)
        # The processes of a lost machine end at once; these would continue for a moment.
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=30)
        shutil.rmtree(self.root / name)


class Writer(threading.Thread):
    """Appends until stopped, and counts the acknowledged episodes."""

    def __init__(self, client) -> None:
        super().__init__(name="writer")
        self.client = client
        self.done = threading.Event()
        self.acknowledged = 0
        self.error: ReplayError | None = None
        self.progress = threading.Condition()

    def run(self) -> None:
        while not self.done.is_set():
            try:
                self.client.append(make_batch(range(self.acknowledged, self.acknowledged + 20)))
            except ReplayError as error:
                self.error = error
                return
            with self.progress:
                self.acknowledged += 20
                self.progress.notify_all()

    def await_more(self, episodes: int) -> None:
        wanted = self.acknowledged + episodes
        with self.progress:
            assert self.progress.wait_for(lambda: self.acknowledged >= wanted or self.error, timeout=120), "no progress"
        if self.error:
            raise self.error


def apart(service) -> bool:
    """Return whether each shard is on another node than its replica."""
    shards, replicas = (
        inside(actors, lambda _: ray.get_runtime_context().get_node_id())
        for actors in (service.shards, service.replicas.actors)
    )
    return all(one != other for one, other in zip(shards, replicas, strict=True))


def held(service) -> Counter:
    return Counter(name for names in ids(service) for name in names)


def main(root: Path) -> None:
    machines = Machines(root)
    directory = root / "run" / "replay"
    with pytest.raises(ReplayError, match="keeps each episode on two nodes, and this Ray cluster has 1"):
        ReplayService.start(CONFIG, directory=directory, seed=0)
    machines.add("a")
    machines.add("b")
    service = ReplayService.start(CONFIG, directory=directory, seed=0)
    assert apart(service), "shards beside their replicas"
    assert not list(directory.glob("shard-*/segment-*")), "logs in the run's folder"
    writer = Writer(service.client())
    writer.start()
    writer.await_more(200)
    for gone, new in (("a", "c"), ("b", "d")):
        machines.add(new)
        begun = time.monotonic()
        machines.lose(gone)
        writer.await_more(200)
        print(f"lost node {gone}, went on after {time.monotonic() - begun:.1f} s, {writer.acknowledged} acknowledged")
        assert apart(service), f"shards beside their replicas after node {gone} was lost"
        if len(service.shards) == CONFIG.shards:
            service.add_shard()
            writer.await_more(200)
    writer.done.set()
    writer.join()
    assert writer.error is None, writer.error
    wanted = Counter(f"e{index}" for index in range(writer.acknowledged))
    assert held(service) == wanted, "an acknowledged episode is missing, or twice there"
    with pytest.raises(LogError, match=r"delete away-shard\.json"):
        ReplayService.start(CONFIG, directory=directory, seed=0, restore=True)
    service.stop()
    left = [path for name in machines.nodes for path in (root / name).rglob("segment-*")]
    assert not left, f"left on nodes: {left}"
    assert not list(directory.glob("shard-*/away-*")), "rows are said to be on nodes"
    grown = CONFIG.model_copy(update={"shards": CONFIG.shards + 1})
    again = ReplayService.start(grown, directory=directory, seed=0, restore=True)
    assert held(again) == wanted, "what came home is not what was there"
    again.stop()
    ray.shutdown()
    machines.cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
