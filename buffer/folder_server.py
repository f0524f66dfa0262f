"""Serving a folder of episodes without Ray or a run, to the same clients as a running replay."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from buffer.archive import read_archive
from buffer.config import ReplayConfig
from buffer.errors import ReplayError
from buffer.flight.tls import Identity
from buffer.metrics import ShardMetrics
from buffer.shard.server import ShardServer
from buffer.shard.shard import Shard, ShardCounts

_EVERYTHING = 1 << 62


@contextmanager
def served_folder(
    source: Path, *, host: str, port: int, token: str, identity: Identity | None = None
) -> Iterator[tuple[ShardServer, ShardCounts]]:
    """Serve every episode of `source` (see `read_archive`); yields the running endpoint and its counts.

    The endpoint is one shard that refuses appends; priorities may be set, and are lost at the end. Raises ReplayError
    if there is no episode or the port is taken.
    """
    config = ReplayConfig(shards=1, durability="memory", capacity_turns=_EVERYTHING)
    with tempfile.TemporaryDirectory(prefix="archer-replay-") as scratch:
        shard = Shard(0, config, Path(scratch), ShardMetrics())
        for batch in read_archive(source):
            shard.append(batch)
        counts = shard.counts()
        if counts.episodes == 0:
            raise ReplayError(f"{source} holds no episode to serve")
        try:
            server = ShardServer(shard, token=token, on_append=None, host=host, port=port, identity=identity)
        except (pa.ArrowException, OSError) as error:
            raise ReplayError(
                f"cannot listen on {host}:{port}, it is taken or not ours; try --port 0 ({error})"
            ) from error
        try:
            yield server, counts
        finally:
            server.shutdown()
