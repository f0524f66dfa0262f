"""The replicas of a service: their process, and their start on other nodes than their shards."""

import logging
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from buffer.config import ReplayConfig
from buffer.errors import ReplayError, ReplayTimeout
from buffer.flight.actor_lookup import actor_name
from buffer.flight.network import listening_address
from buffer.flight.tls import read_identity
from buffer.log.folders import shard_directory
from buffer.metrics import ReplicaMetrics
from buffer.replication.log_location import local_folder, mark_away, remove_local, unmark_away
from buffer.replication.replica import Replica
from buffer.replication.transport import ReplicaServer
from buffer.telemetry.endpoint import Exposure


class ReplicaActor:
    """Process of one replica, started by `Replicas` through `ray.remote`."""

    def __init__(
        self, index: int, config: ReplayConfig, directory: Path, service: str, token: str, exposure: Exposure
    ) -> None:
        """`directory` is the replay's folder, `service` the unique name of the service."""
        logging.basicConfig(level=logging.INFO)
        self._folder = local_folder(config.local_dir, directory, service, f"replica-{index}")
        replica = Replica(self._folder, fsync=config.durability == "fsync")
        host = listening_address("node")
        identity = None if config.tls is None else read_identity(config.tls)
        self._server = ReplicaServer(replica, token=token, host=host, identity=identity)
        self._address = f"{host}:{self._server.port}"
        self._shard = shard_directory(directory, index)
        mark_away(self._shard, "replica", host, self._folder)
        metrics = ReplicaMetrics()
        metrics.bytes.set_function(lambda: sum(replica.sizes().values()))
        metrics.epoch.set_function(lambda: replica.epoch)
        self._metrics_address = exposure.serve(metrics.registry)

    def address(self) -> str:
        """Return "host:port" of the Flight endpoint."""
        return self._address

    def metrics_address(self) -> str:
        """Return "host:port" of the metrics endpoint of this process."""
        return self._metrics_address

    def close(self) -> None:
        """Delete the copy, after the shard has moved its own rows back."""
        remove_local(self._folder)
        unmark_away(self._shard, "replica")


def check_nodes() -> None:
    """Raise ReplayError if the Ray cluster has no two nodes."""
    if len(nodes := [node for node in ray.nodes() if node["Alive"]]) < 2:
        raise ReplayError(
            f"replication=2 keeps each episode on two nodes, and this Ray cluster has {len(nodes)}; add a node, or "
            "set replication=1"
        )


class Replicas:
    """The replica actors of one service. Ray keeps each on another node than its shard, also after restarts."""

    def __init__(self, config: ReplayConfig, directory: Path, service: str, token: str, exposure: Exposure) -> None:
        self._config = config
        self._directory = directory
        self._service = service
        self._token = token
        self._exposure = exposure
        self._pairs: list[PlacementGroup] = []
        self.actors: list[ActorHandle] = []

    def start(self, index: int, options: dict[str, Any]) -> PlacementGroupSchedulingStrategy:
        """Start the replica of a shard with Ray's actor `options`; returns where to start the shard itself."""
        config = self._config
        # STRICT_SPREAD, or Ray may restart one of the two on the other's node when its own node is lost.
        pair = ray.util.placement_group(
            [{"CPU": config.cpus_per_shard, **config.resources}] * 2, strategy="STRICT_SPREAD"
        )
        self._pairs.append(pair)
        if not pair.wait(config.timeout_s):
            raise ReplayTimeout(
                f"Ray found no room for replay shard {index} and its replica within {config.timeout_s:g} s; "
                "they need CPUs on two nodes (ray status)"
            )
        strategy = PlacementGroupSchedulingStrategy(pair, placement_group_bundle_index=1)
        actor = (
            ray.remote(ReplicaActor)
            .options(**options, name=actor_name(self._service, "replica", index), scheduling_strategy=strategy)
            .remote(index, config, self._directory, self._service, self._token, self._exposure)
        )
        self.actors.append(actor)
        return PlacementGroupSchedulingStrategy(pair, placement_group_bundle_index=0)

    def remove(self) -> None:
        """Kill the replicas and return their CPUs."""
        for actor in self.actors:
            ray.kill(actor)
        for pair in self._pairs:
            ray.util.remove_placement_group(pair)
