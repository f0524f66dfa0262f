"""A folder of episodes served alone, without Ray or a run: read by the same clients as a running replay."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from buffer.archive import read_archive
from buffer.config import ReplayConfig
from buffer.errors import ReplayError
from buffer.flight.server import ReplayFlightServer
from buffer.metrics import ShardMetrics
from buffer.shard.shard import Shard, ShardCounts

_EVERYTHING = 1 << 62


@contextmanager
def served_folder(
    source: Path, *, host: str, port: int, token: str
) -> Iterator[tuple[ReplayFlightServer, ShardCounts]]:
    """The running endpoint over every episode of `source` (see `read_archive`), and what it holds.

    One shard that takes no appends; priorities may be set, and are forgotten at the end. Raises ReplayError where there
    is no episode or the port is taken.
    """
    config = ReplayConfig(shards=1, durability="memory", capacity_turns=_EVERYTHING)
    with tempfile.TemporaryDirectory(prefix="archer-replay-") as scratch:
        shard = Shard(0, config, Path(scratch), ShardMetrics(0))
        for batch in read_archive(source):
            shard.append(batch)
        counts = shard.counts()
        if counts.episodes == 0:
            raise ReplayError(f"{source} holds no episode to serve")
        try:
            server = ReplayFlightServer(shard, token=token, on_append=None, host=host, port=port)
        except (pa.ArrowException, OSError) as error:
            raise ReplayError(
                f"cannot listen on {host}:{port}, it is taken or not ours; try --port 0 ({error})"
            ) from error
        try:
            yield server, counts
        finally:
            server.shutdown()
