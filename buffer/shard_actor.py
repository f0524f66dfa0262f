"""A shard's Ray actor: placement, life and death of the process around a `Shard` and its Flight endpoint.

Killed, Ray starts it again: it reads its log, opens a new port and reports to the limiter; clients ask its
handle for the new address.
"""

import logging
import os
import uuid
from pathlib import Path
from typing import Any

import ray

from buffer.access import write_endpoint
from buffer.config import ReplayConfig
from buffer.delayed import Delayed
from buffer.flight import ReplayFlightServer
from buffer.layout import read_manifest
from buffer.metrics import ShardMetrics, serve
from buffer.shard import Shard

logger = logging.getLogger(__name__)

_REPORT_DELAY_S = 0.02


class ShardActor:
    """See the module. Made by `ReplayService` through `ray.remote`."""

    def __init__(self, index: int, config: ReplayConfig, directory: Path, limiter: str, token: str) -> None:
        """`limiter` is the name of its actor: Ray may not find a handle again when it restarts this one."""
        logging.basicConfig(level=logging.INFO)
        self._config = config
        self._directory = directory
        self._limiter = ray.get_actor(limiter)
        self._life = uuid.uuid4().hex
        self._reports = Delayed(self.report, _REPORT_DELAY_S)
        metrics = ShardMetrics(index)
        self._shard = Shard(index, config, directory, metrics)
        self._born = self._shard.counts().as_dict()
        self._log_start(directory, lost=self.report())
        host = ray.util.get_node_ip_address()
        self._server = ReplayFlightServer(self._shard, token=token, on_append=self._after_append)
        self.count_shards()
        self._address = f"{host}:{self._server.port}"
        write_endpoint(directory, self._address)
        self._metrics_address = serve(metrics.registry, host)

    def _log_start(self, directory: Path, *, lost: int) -> None:
        counts = self._shard.counts()
        if lost:
            logger.warning(
                "replay shard %d came back without %d of its episodes, it holds %d: durability=%s does not keep them",
                self._shard.index,
                lost,
                counts.episodes,
                self._config.durability,
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
        """Without samples_per_insert the count may come a moment after the acknowledgement: it bounds nobody."""
        if self._config.samples_per_insert is None:
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
