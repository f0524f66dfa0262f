"""The client of a running service: what `BaseClient` can do under its limiter, and counts, checkpoints."""

from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle

from buffer.client.base import BaseClient
from buffer.client.fan_out import Shards
from buffer.config import ReplayConfig
from buffer.errors import LogError, ReplayError, ReplayTimeout
from buffer.flight.actor_lookup import find_actor, locate_actor
from buffer.limiter.client import LimiterClient
from buffer.log.folders import Manifest, finish_checkpoint, prepare_checkpoint, shard_directory
from buffer.placement import Placement, Topology
from buffer.sampling.sample import Stats


class ReplayClient(BaseClient):
    """See `BaseClient`; picklable too: one object in each process that writes or samples."""

    def __init__(self, config: ReplayConfig, limiter: ActorHandle, *, seed: int, token: str) -> None:
        self.config = config
        self._token = token
        self._limiter_actor = limiter
        self._open(np.random.default_rng(seed))

    def _open(self, rng: np.random.Generator) -> None:
        self._counts = LimiterClient(self.config, self._limiter_actor)
        shards = Shards(self._find, self._token)
        super().__init__(shards, self._counts, rng=rng, timeout_s=self.config.timeout_s)

    def _find(self) -> Topology:
        names, earlier = self._topology()
        return Topology([locate_actor(f"replay shard {index}", name) for index, name in enumerate(names)], earlier)

    def _topology(self) -> tuple[list[str], tuple[Placement, ...]]:
        (topology,) = self._gather([self._counts.call("topology")], "looking for the shards")
        return topology

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("config", "_token", "_limiter_actor", "_rng")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open(self._rng)

    def stats(self) -> Stats:
        """Counts over all shards. Raises ReplayTimeout where one does not answer."""
        self._counts.flush()
        names, _ = self._topology()
        shards = self._gather([find_actor(name).stats.remote() for name in names], "stats")
        (totals,) = self._gather([self._counts.call("stats")], "stats")
        episodes = sum(shard["episodes"] for shard in shards)
        return Stats(
            episodes=episodes,
            turns=sum(shard["turns"] for shard in shards),
            bytes=sum(shard["bytes"] for shard in shards),
            evicted=totals["inserted_episodes"] - episodes,
            **totals,
        )

    def checkpoint(self, directory: Path) -> None:
        """Write rows, order, priorities and counts as they are now under `directory`, new or unfinished.

        Segments are hard links where the file system allows. Each shard is exact at its own moment; without
        writers meanwhile, the whole is. Restore with `ReplayService.start(..., restore=directory)`.
        """
        directory = Path(directory).absolute()
        prepare_checkpoint(directory)
        self._counts.flush()
        names, earlier = self._topology()
        calls = [
            find_actor(name).checkpoint.remote(shard_directory(directory, index)) for index, name in enumerate(names)
        ]
        counts = self._gather(calls, "checkpoint")
        self._gather([self._counts.call("checkpoint", directory)], "checkpoint")
        finish_checkpoint(directory, Manifest(len(names), earlier), counts)

    def close(self) -> None:
        """Count what is not counted yet, where the service still runs; close connections and threads."""
        self._counts.flush()
        super().close()

    def _gather(self, calls: list[Any], what: str) -> list[Any]:
        """The answers of all shards (or the limiter). Raises ReplayTimeout naming those that did not answer."""
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
