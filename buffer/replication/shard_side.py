"""Replication in the process of a shard: opening the replicated log, acknowledging appends, closing."""

import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pyarrow.flight as flight
import ray

from buffer.config import ReplayConfig
from buffer.errors import ReplayTimeout
from buffer.flight.actor_lookup import actor_name, locate_actor
from buffer.flight.endpoint import Endpoint
from buffer.flight.tls import read_trust
from buffer.log.folders import link_shard
from buffer.log.write_ahead import Segment
from buffer.metrics import ShardMetrics
from buffer.replication.log_location import local_folder, mark_away, move_log_back
from buffer.replication.replica import EpochError
from buffer.replication.replicated_log import ReplicatedLog

logger = logging.getLogger(__name__)

_ACKNOWLEDGE_S = 20.0
"""Seconds for which one request waits for the replica: less than the client's timeout of one attempt."""


class ShardReplication:
    """The replicated log of one shard process. `directory` is the shard's folder in the replay's folder."""

    def __init__(
        self, index: int, config: ReplayConfig, directory: Path, service: str, token: str, metrics: ShardMetrics
    ) -> None:
        """Recover the log into a folder of this node, which may be another node than the last process had."""
        self._directory = directory
        self._timeout_s = config.timeout_s
        name = f"the replica of replay shard {index}"
        self.log = ReplicatedLog(
            local_folder(config.local_dir, directory.parent, service, directory.name),
            Endpoint(
                name,
                locate_actor(name, actor_name(service, "replica", index)),
                token,
                None if config.tls is None else read_trust(config.tls),
            ),
            fsync=config.durability == "fsync",
            metrics=metrics,
        )
        self.log.recover(partial(link_shard, directory), config.timeout_s)
        mark_away(directory, "shard", ray.util.get_node_ip_address(), self.log.directory)

    def complete(self, segments: Callable[[], Sequence[Segment]]) -> None:
        """Return when the replica has the whole log. Raises ReplayTimeout."""
        self._sync(segments, self._timeout_s)

    def acknowledge(self, segments: Callable[[], Sequence[Segment]]) -> None:
        """Return when the replica has an append, or make its client retry until the client's own deadline."""
        try:
            self._sync(segments, _ACKNOWLEDGE_S)
        except ReplayTimeout as error:
            raise flight.FlightUnavailableError(str(error)) from error

    def close(self) -> None:
        """Move the sealed log back to the shard's folder."""
        move_log_back(self.log.directory, self._directory)

    def _sync(self, segments: Callable[[], Sequence[Segment]], timeout_s: float) -> None:
        try:
            self.log.sync(segments, timeout_s)
        except EpochError as error:
            # Ray declared this process dead and started another one, which clients will find.
            logger.error("the process of replay shard %s exits: %s", self._directory.name, error)
            os._exit(1)
