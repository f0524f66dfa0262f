"""Follow a node that joins a Ray cluster and leaves it, and print each change of the number of rollout workers.

`test_archer_elastic.py` runs this file in a process of its own, because it starts a cluster of two nodes. The workers
are actors that hold CPUs and do nothing else.
"""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.cluster_utils import Cluster

from archer.config.models import RunConfig
from archer.driver import elastic as module
from archer.driver.elastic import elastic

LIMIT_S = 120.0


@ray.remote(num_cpus=2)
class Holder:
    """Holds two CPUs."""

    def ready(self) -> bool:
        return True


class Pool:
    """A pool of holders; satisfies what `elastic` needs of a `PoolClient`."""

    def __init__(self) -> None:
        self.workers = 0
        self.holders: list[Any] = []

    def size(self) -> tuple[int, int]:
        return self.workers, len(self.holders)

    def resize(self, workers: int) -> None:
        while len(self.holders) < workers:
            holder = Holder.remote()
            ray.get(holder.ready.remote(), timeout=LIMIT_S)
            self.holders.append(holder)
        del self.holders[workers:]
        self.workers = workers


def wait_for(changes: list[str], count: int) -> None:
    """Wait until there are `count` changes."""
    end = time.monotonic() + LIMIT_S
    while len(changes) < count:
        assert time.monotonic() < end, f"no change within {LIMIT_S:g} s after {changes}"
        time.sleep(0.1)


def main() -> None:
    module.LOOK_S = 0.3
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False})
    ray.init(address=cluster.address, log_to_driver=False)
    tree = {"model": {"path": "gpt2"}, "env": {"id": "key_door"}}
    config = RunConfig.model_validate(tree | {"rollout": {"workers": {"min": 1, "max": 4}, "cpus_per_worker": 2}})
    pool: Any = Pool()
    pool.resize(1)
    changes: list[str] = []
    with elastic(config, pool, lambda before, after: changes.append(f"{before} -> {after}")):
        node = cluster.add_node(num_cpus=5)
        wait_for(changes, 1)
        cluster.remove_node(node)
        del pool.holders[1:]  # the pool's supervision notices that its processes have ended
        wait_for(changes, 2)
    print(", ".join(changes))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
