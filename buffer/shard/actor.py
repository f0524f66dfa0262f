"""The Ray actor of a shard: the process around a `Shard` and its Flight endpoint.

If the process is killed, Ray starts another one. It reads the log, opens a new port and reports to the limiter; clients
ask the actor for the new address.
"""

import logging
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray

from buffer.config import ReplayConfig
from buffer.debounce import Delayed
from buffer.flight.actor_lookup import actor_name
from buffer.flight.discovery_files import write_endpoint
from buffer.flight.network import listening_address
from buffer.flight.tls import read_identity
from buffer.log.folders import read_manifest
from buffer.metrics import ShardMetrics
from buffer.replication.shard_side import ShardReplication
from buffer.shard.server import ShardServer
from buffer.shard.shard import Shard
from buffer.telemetry.endpoint import Exposure

logger = logging.getLogger(__name__)

_REPORT_DELAY_S = 0.02


class ShardActor:
    """Process of one shard, started by `ReplayService` through `ray.remote`."""

    def __init__(
        self, index: int, config: ReplayConfig, directory: Path, service: str, token: str, exposure: Exposure
    ) -> None:
        """`directory` is the shard's folder, `service` the unique name of the service.

        Actors find each other by name, because Ray may not resolve a handle when it restarts an actor.
        """
        logging.basicConfig(level=logging.INFO)
        self._config = config
        self._directory = directory
        self._limiter = ray.get_actor(actor_name(service, "limiter"))
        self._life = uuid.uuid4().hex  # Identifies this process to the limiter
        self._reports = Delayed(self.report, _REPORT_DELAY_S)
        metrics = ShardMetrics()
        self._replication: ShardReplication | None = None
        log_directory = directory
        if config.replication == 2:
            self._replication = ShardReplication(index, config, directory, service, token, metrics)
            log_directory = self._replication.log.directory
        self._shard = Shard(index, config, log_directory, metrics)
        if self._replication is not None:
            self._replication.complete(self._shard.segments)
        self._born = asdict(self._shard.counts())
        self._log_start(lost=self.report())
        host = listening_address(config.listen)
        identity = None if config.tls is None else read_identity(config.tls)
        self._server = ShardServer(self._shard, token=token, on_append=self._after_append, host=host, identity=identity)
        self.count_shards()
        self._address = f"{host}:{self._server.port}"
        write_endpoint(directory, self._address)
        self._metrics_address = exposure.serve(metrics.registry)

    def _log_start(self, *, lost: int) -> None:
        name, held, config = f"replay shard {self._shard.index}", self._shard.counts(), self._config
        if lost:
            kept = f"durability={config.durability} with replication={config.replication} does not keep them"
            logger.warning("%s lost %d episodes at its restart and holds %d: %s", name, lost, held.episodes, kept)
        elif held.episodes:
            logger.info("%s read %d episodes (%d turns) from its log", name, held.episodes, held.turns)

    def report(self) -> int:
        """Send the counts to the limiter; returns the episodes that this process lost at its start.

        Runs before an acknowledgement if the limiter may block on the counts, and when a restarted limiter asks.
        """
        counts = asdict(self._shard.counts())
        answer = self._limiter.report.remote(self._shard.index, self._life, counts, self._born)
        try:
            return ray.get(answer, timeout=self._config.timeout_s)
        except (ray.exceptions.GetTimeoutError, ray.exceptions.RayActorError) as error:
            # The rows are durable, and the next report carries these counts too.
            logger.warning("replay shard %d could not report its counts to the limiter: %s", self._shard.index, error)
            return 0

    def _after_append(self) -> None:
        """Replicate and count an append. If the limiter never blocks inserts, the count may follow later."""
        if self._replication is not None:
            self._replication.acknowledge(self._shard.segments)
        if not self._config.bounds_inserts:
            self._reports.ask()
        else:
            self.report()

    def count_shards(self) -> None:
        """Read the number of shards, which every answer carries to clients."""
        self._server.shards = read_manifest(self._directory.parent).shards

    def address(self) -> str:
        """Return "host:port" of the Flight endpoint of this process."""
        return self._address

    def metrics_address(self) -> str:
        """Return "host:port" of the metrics endpoint of this process."""
        return self._metrics_address

    def stats(self) -> dict[str, int]:
        """Return the counts of this shard, after reporting them to the limiter."""
        self._reports.finish()
        return asdict(self._shard.counts())

    def checkpoint(self, directory: Path) -> dict[str, Any]:
        """See `Shard.checkpoint`."""
        self._reports.finish()
        return self._shard.checkpoint(Path(directory))

    def close(self) -> None:
        """Seal the log at an orderly end, and report the last counts."""
        self._reports.finish()
        self._shard.close()
        if self._replication is not None:
            self._replication.close()
