"""A shard's Ray actor: placement, life and death of the process around a `Shard` and its Flight endpoint.

Killed, Ray starts it again: it reads its log, opens a new port and reports to the limiter; clients ask its
handle for the new address.
"""

import logging
import os
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.flight as flight
import ray

from buffer.config import ReplayConfig
from buffer.debounce import Delayed
from buffer.errors import EpochError, ReplayTimeout
from buffer.flight.actor_lookup import limiter_name, locate_actor
from buffer.flight.server import ReplayFlightServer
from buffer.flight.token import write_endpoint
from buffer.log.folders import read_manifest
from buffer.metrics import ShardMetrics, serve
from buffer.replication.flight import ReplicaEndpoint
from buffer.replication.log_location import bring_home, copy_from_home, leave_home, local_folder
from buffer.replication.primary import Replication
from buffer.shard.shard import Shard

logger = logging.getLogger(__name__)

_REPORT_DELAY_S = 0.02
_REPLICATE_S = 20.0
"""Seconds for which one request waits for the replica: less than its client gives it."""


class ShardActor:
    """See the module. Made by `ReplayService` through `ray.remote`."""

    def __init__(
        self, index: int, config: ReplayConfig, directory: Path, life: str, token: str, replica: str | None = None
    ) -> None:
        """`life` is the service's, and begins the names of its actors: Ray may not find a handle again when it
        restarts this one. `replica` is the name of this shard's, where it has one.
        """
        logging.basicConfig(level=logging.INFO)
        self._config = config
        self._directory = directory
        self._log_directory = directory
        self._limiter = ray.get_actor(limiter_name(life))
        self._life = uuid.uuid4().hex
        self._reports = Delayed(self.report, _REPORT_DELAY_S)
        metrics = ShardMetrics(index)
        self._replication: Replication | None = None
        if replica is not None:
            self._log_directory = local_folder(config.local_dir, directory.parent, life, directory.name)
            self._replication = self._recover(index, replica, token, metrics)
        self._shard = Shard(index, config, self._log_directory, metrics)
        self._replicate(config.timeout_s)
        self._born = self._shard.counts().as_dict()
        self._log_start(directory, lost=self.report())
        host = ray.util.get_node_ip_address()
        self._server = ReplayFlightServer(self._shard, token=token, on_append=self._after_append)
        self.count_shards()
        self._address = f"{host}:{self._server.port}"
        write_endpoint(directory, self._address)
        self._metrics_address = serve(metrics.registry, host)

    def _recover(self, index: int, replica: str, token: str, metrics: ShardMetrics) -> Replication:
        """Fill the log's folder on this node, which may be another than that of the process before."""
        replication = Replication(
            self._log_directory,
            ReplicaEndpoint(name := f"the replica of replay shard {index}", locate_actor(name, replica), token),
            fsync=self._config.durability == "fsync",
            metrics=metrics,
        )
        replication.recover(partial(copy_from_home, self._directory), self._config.timeout_s)
        leave_home(self._directory, "shard", ray.util.get_node_ip_address(), self._log_directory)
        return replication

    def _replicate(self, timeout_s: float) -> None:
        """Return once the replica has every row of the log. Raises ReplayTimeout."""
        if self._replication is None:
            return
        try:
            self._replication.sync(self._shard.segments, timeout_s)
        except EpochError as error:
            # Ray took this process for dead and has put another in its place, which clients will find.
            logger.error("replay shard %d ends: %s", self._shard.index, error)
            os._exit(1)

    def _log_start(self, directory: Path, *, lost: int) -> None:
        counts = self._shard.counts()
        if lost:
            logger.warning(
                "replay shard %d came back without %d of its episodes, it holds %d: durability=%s with replication=%d "
                "does not keep them",
                self._shard.index,
                lost,
                counts.episodes,
                self._config.durability,
                self._config.replication,
            )
        elif counts.episodes:
            logger.info(
                "replay shard %d holds %d episodes (%d turns) from its log %s",
                self._shard.index,
                counts.episodes,
                counts.turns,
                directory,
            )

    def report(self) -> int:
        """Tell the limiter the counts, so that every client's next wait sees them; returns episodes lost at birth.

        Runs before an acknowledgement where the limiter may hold someone back, and when a restarted limiter asks.
        """
        counts = self._shard.counts().as_dict()
        answer = self._limiter.report.remote(self._shard.index, self._life, counts, self._born)
        try:
            return ray.get(answer, timeout=self._config.timeout_s)
        except (ray.exceptions.GetTimeoutError, ray.exceptions.RayActorError) as error:
            # The rows are durable; the limiter learns of them with the next report.
            logger.warning("replay shard %d could not report its counts to the limiter: %s", self._shard.index, error)
            return 0

    def _after_append(self) -> None:
        """Replicate, then count.

        Where no limiter bounds inserts the count may come a moment after the acknowledgement: it bounds nobody.
        """
        try:
            self._replicate(_REPLICATE_S)
        except ReplayTimeout as error:
            # The writer asks again for as long as it has time, and says then what it waited for.
            raise flight.FlightUnavailableError(str(error)) from error
        if not self._config.bounds_inserts:
            self._reports.ask()
        else:
            self.report()

    def count_shards(self) -> None:
        """Look how many shards there are, for clients to learn of new ones."""
        self._server.shards = read_manifest(self._directory.parent).shards

    def address(self) -> str:
        """host:port of the Flight endpoint of this process."""
        return self._address

    def metrics_address(self) -> str:
        """host:port of the metrics endpoint of this process."""
        return self._metrics_address

    def node(self) -> str:
        """Ray's id of this process's node."""
        return str(ray.get_runtime_context().get_node_id())

    def pid(self) -> int:
        """Process id on its node, for operators and fault tests."""
        return os.getpid()

    def stats(self) -> dict[str, int]:
        """Counts of this shard, which the limiter then knows too."""
        self._reports.finish()
        return self._shard.counts().as_dict()

    def ids(self) -> list[str]:
        """Ids held, oldest first."""
        return self._shard.ids()

    def checkpoint(self, directory: Path) -> dict[str, Any]:
        """See `Shard.checkpoint`."""
        self._reports.finish()
        return self._shard.checkpoint(Path(directory))

    def close(self) -> None:
        """Seal the log, for an orderly end, which the limiter hears of."""
        self._reports.finish()
        self._shard.close()
        if self._replication is not None:
            bring_home(self._log_directory, self._directory)
