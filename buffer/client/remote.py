"""The client outside Ray: a notebook or another trainer reads, appends and sets priorities with the replay's token."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from buffer.client.base import BaseClient, NoLimiter
from buffer.client.shards import FindShards, Shards, Topology
from buffer.flight.discovery_files import read_access, read_endpoint
from buffer.flight.tls import Trust
from buffer.log.folders import read_manifest, shard_directory


class RemoteClient(BaseClient):
    """Client without a limiter: it never waits for the run, and the run does not count what it samples."""

    def __init__(
        self, find: FindShards, token: str, *, trust: Trust | None = None, seed: int = 0, timeout_s: float = 60.0
    ) -> None:
        rng = np.random.default_rng(seed)
        super().__init__(Shards(find, token, trust), NoLimiter(), rng=rng, timeout_s=timeout_s)

    @classmethod
    def at(
        cls,
        addresses: Sequence[str],
        token: str,
        *,
        authority: Path | None = None,
        name: str | None = None,
        seed: int = 0,
        timeout_s: float = 60.0,
    ) -> Self:
        """Connect to endpoints "host:port", one of each shard, in order.

        Args:
            authority: PEM file of the certificates to trust; None connects without TLS.
            name: name in the server's certificate, if it is not the address.
        """
        trust = None if authority is None else Trust(Path(authority).read_bytes(), name)
        topology = Topology([lambda _, fixed=address: fixed for address in addresses], ())  # type: ignore[misc]
        return cls(lambda: topology, token, trust=trust, seed=seed, timeout_s=timeout_s)

    @classmethod
    def of_folder(cls, directory: Path, *, seed: int = 0, timeout_s: float = 60.0) -> Self:
        """Connect to the replay that runs in a folder (`runs/NAME/replay`), also after a shard restarts.

        Raises ReplayError if no replay runs there or its token is not readable.
        """
        directory = Path(directory)
        token, trust = read_access(directory)

        def find() -> Topology:
            manifest = read_manifest(directory)
            folders = [shard_directory(directory, index) for index in range(manifest.shards)]
            return Topology([lambda _, shard=folder: read_endpoint(shard) for folder in folders], manifest.earlier)  # type: ignore[misc]

        return cls(find, token, trust=trust, seed=seed, timeout_s=timeout_s)

    def counts(self) -> dict[str, int]:
        """Return episodes, turns and bytes held, and episodes and turns ever inserted, over all shards."""
        deadline = time.monotonic() + self._timeout_s
        self._shards.refresh()
        counts = [json.loads(answer) for answer in self._shards.ask("stats", {}, self._shards.every, deadline)]
        return {name: sum(shard[name] for shard in counts) for name in counts[0]}
