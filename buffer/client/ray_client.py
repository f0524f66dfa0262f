"""The client inside Ray: `BaseClient` behind the limiter, with counts and checkpoints."""

from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle

from buffer.client.base import BaseClient
from buffer.client.limiter_client import LimiterClient
from buffer.client.shards import Shards, Topology
from buffer.config import ReplayConfig
from buffer.errors import LogError, ReplayError, ReplayTimeout
from buffer.flight.actor_lookup import find_actor, locate_actor
from buffer.flight.tls import read_trust
from buffer.log.folders import Manifest, prepare_checkpoint, shard_directory, write_manifest
from buffer.sampling.sample import Stats


class ReplayClient(BaseClient):
    """Client of a running service. Picklable, so each process can have its own."""

    def __init__(self, config: ReplayConfig, limiter: ActorHandle, *, seed: int, token: str) -> None:
        self.config = config
        self._token = token
        self._limiter_actor = limiter
        self._open(np.random.default_rng(seed))

    def _open(self, rng: np.random.Generator) -> None:
        self._counts = LimiterClient(self.config, self._limiter_actor)
        trust = None if self.config.tls is None else read_trust(self.config.tls)
        shards = Shards(self._find_shards, self._token, trust)
        super().__init__(shards, self._counts, rng=rng, timeout_s=self.config.timeout_s)

    def _find_shards(self) -> Topology:
        names, earlier = self._topology()
        return Topology([locate_actor(f"replay shard {index}", name) for index, name in enumerate(names)], earlier)

    def _topology(self) -> tuple[list[str], tuple[int, ...]]:
        (topology,) = self._gather([self._limiter_actor.topology.remote()], "finding the shards")
        return topology

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("config", "_token", "_limiter_actor", "_rng")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open(self._rng)

    def stats(self) -> Stats:
        """Return the counts over all shards. Raises ReplayTimeout if a shard does not answer."""
        self._counts.flush()
        names, _ = self._topology()
        shards = self._gather([find_actor(name).stats.remote() for name in names], "stats")
        (totals,) = self._gather([self._limiter_actor.stats.remote()], "stats")
        held = {name: sum(shard[name] for shard in shards) for name in ("episodes", "turns", "bytes")}
        return Stats(**held, **totals, evicted=totals["inserted_episodes"] - held["episodes"])

    def checkpoint(self, directory: Path) -> None:
        """Write rows, order, priorities and counts under `directory`, which must hold no complete checkpoint.

        Segments are hard links where the file system allows them. Each shard is exact at its own moment; without
        concurrent appends the whole checkpoint is. Restore with `ReplayService.start(..., restore=directory)`.
        """
        directory = Path(directory).absolute()
        prepare_checkpoint(directory)
        self._counts.flush()
        names, earlier = self._topology()
        calls = [
            find_actor(name).checkpoint.remote(shard_directory(directory, index)) for index, name in enumerate(names)
        ]
        counts = self._gather(calls, "checkpoint")
        self._gather([self._limiter_actor.checkpoint.remote(directory)], "checkpoint")
        write_manifest(directory, Manifest(len(names), earlier), counts=counts)

    def close(self) -> None:
        """Report outstanding counts to the limiter; close connections and threads."""
        self._counts.flush()
        super().close()

    def _gather(self, calls: list[Any], what: str) -> list[Any]:
        """Return the answers of all shards, or of the limiter. Raises ReplayTimeout that names missing shards."""
        _, missing = ray.wait(calls, num_returns=len(calls), timeout=self.config.timeout_s)
        if missing:
            names = [calls.index(call) for call in missing]
            raise ReplayTimeout(f"{what} waits for replay shards {names} of {len(calls)}; see their logs")
        try:
            return ray.get(calls)
        except ray.exceptions.RayActorError as error:
            raise ReplayError(f"{what}: a replay shard or the limiter is gone for good: {error}") from error
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ReplayError):
                raise error.cause from None
            if isinstance(error.cause, OSError):
                raise LogError(f"{what} of the replay failed: {error.cause}") from error
            raise
