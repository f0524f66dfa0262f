"""A running replay from outside Ray: a notebook or another trainer reads, appends and sets priorities by its token."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np

from buffer.client.base import BaseClient
from buffer.client.fan_out import Shards
from buffer.flight.endpoint import Locate
from buffer.flight.token import read_endpoint, read_token
from buffer.log.folders import read_manifest, shard_directory
from buffer.placement import Find, Topology
from buffer.sampling.row_filter import View


class RemoteClient(BaseClient):
    """What `BaseClient` can do, past the limiter: it waits for neither side of the run and counts as none."""

    def __init__(self, find: Find, token: str, *, seed: int = 0, timeout_s: float = 60.0) -> None:
        super().__init__(Shards(find, token), _Open(), rng=np.random.default_rng(seed), timeout_s=timeout_s)

    @classmethod
    def at(cls, addresses: Sequence[str], token: str, *, seed: int = 0, timeout_s: float = 60.0) -> Self:
        """Of endpoints "host:port", every shard's in order."""
        topology = Topology([_fixed(address) for address in addresses], ())
        return cls(lambda: topology, token, seed=seed, timeout_s=timeout_s)

    @classmethod
    def of_folder(cls, directory: Path, *, seed: int = 0, timeout_s: float = 60.0) -> Self:
        """Of the replay that runs in a folder (`runs/NAME/replay`); a shard that restarts is found again.

        Raises ReplayError where none runs there, or its token is not for us to read.
        """
        directory = Path(directory)
        token = read_token(directory)

        def find() -> Topology:
            manifest = read_manifest(directory)
            shards = [shard_directory(directory, index) for index in range(manifest.shards)]
            return Topology([_written(shard) for shard in shards], manifest.earlier)

        return cls(find, token, seed=seed, timeout_s=timeout_s)

    def counts(self) -> dict[str, int]:
        """Episodes, turns and bytes held, and what was ever inserted, over all shards."""
        shards = self._shards.stats(time.monotonic() + self._timeout_s)
        return {name: sum(shard[name] for shard in shards) for name in shards[0]}


class _Open:
    """A limiter that holds nobody back."""

    def await_insert(self, deadline: float) -> None:
        return

    @contextmanager
    def sampling(self, view: View, deadline: float, turns: int = 0) -> Iterator[Callable[[int], None]]:
        yield lambda taken: None


def _fixed(address: str) -> Locate:
    return lambda timeout_s: address


def _written(shard: Path) -> Locate:
    return lambda timeout_s: read_endpoint(shard)
