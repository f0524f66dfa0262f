"""A replica's Ray actor: the process around a `Replica` and its Flight endpoint, on another node than its shard's."""

import logging
import os
from pathlib import Path

import ray

from buffer.config import ReplayConfig
from buffer.log.folders import shard_directory
from buffer.replication.flight import ReplicaFlightServer
from buffer.replication.log_location import come_home, leave_home, local_folder, remove_local
from buffer.replication.replica import Replica


class ReplicaActor:
    """See the module. Made by `ReplayService` through `ray.remote`."""

    def __init__(self, index: int, config: ReplayConfig, directory: Path, life: str, token: str) -> None:
        """`directory` is the replay's, `life` names the service that runs on it."""
        logging.basicConfig(level=logging.INFO)
        self._folder = local_folder(config.local_dir, directory, life, f"replica-{index}")
        replica = Replica(self._folder, fsync=config.durability == "fsync")
        self._server = ReplicaFlightServer(replica, token=token)
        host = ray.util.get_node_ip_address()
        self._address = f"{host}:{self._server.port}"
        self._home = shard_directory(directory, index)
        leave_home(self._home, "replica", host, self._folder)

    def address(self) -> str:
        """host:port of the Flight endpoint of this process."""
        return self._address

    def node(self) -> str:
        """Ray's id of this process's node."""
        return str(ray.get_runtime_context().get_node_id())

    def pid(self) -> int:
        """Process id on its node, for operators and fault tests."""
        return os.getpid()

    def close(self) -> None:
        """Delete the copy, once the shard's own rows are at home."""
        remove_local(self._folder)
        come_home(self._home, "replica")
