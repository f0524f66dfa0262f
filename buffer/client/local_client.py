"""The client of a replay in its own process: one shard in memory, without Ray and without a network."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from buffer.atomic_files import write_atomic
from buffer.client.base import BaseClient, NoLimiter
from buffer.client.shards import Shards, Topology
from buffer.config import ReplayConfig
from buffer.errors import LogError, ReplayTimeout
from buffer.limiter.limiter import Limiter
from buffer.log.folders import (
    STATE_FILE,
    Manifest,
    prepare_checkpoint,
    read_manifest,
    restore_checkpoint,
    shard_directory,
    write_manifest,
)
from buffer.metrics import ShardMetrics
from buffer.sampling.request import View
from buffer.sampling.sample import Sample, Stats
from buffer.shard import requests
from buffer.shard.shard import Shard

_LIFE = "local"
_NO_HELP = "waiting does not help, because the caller itself would have to do it; change the limits of this view"


class LocalShard:
    """Answers a client's requests by calls of a shard in this process."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard

    def act(self, action: str, request: bytes | dict[str, Any], deadline: float) -> bytes:
        """See `Connection`."""
        return requests.answer(
            self._shard, action, request if isinstance(request, bytes) else json.dumps(request).encode()
        )

    def get(self, what: str, ticket: dict[str, Any], deadline: float) -> tuple[list[pa.RecordBatch], bytes]:
        """See `Connection`."""
        draws, batches = requests.take(self._shard, ticket)
        return list(batches), draws.to_bytes(1)

    def put(self, what: str, batches: Sequence[pa.RecordBatch], deadline: float) -> list[bytes]:
        """See `Connection`."""
        return [json.dumps({"new": requests.append(self._shard, batch), "shards": 1}).encode() for batch in batches]

    def close(self) -> None:
        """Do nothing: there is no connection."""


class _OneShard(Shards):
    def __init__(self, shard: Shard) -> None:
        super().__init__(lambda: Topology([], ()), token="")
        self._endpoints = [LocalShard(shard)]

    def refresh(self, *, force: bool = False) -> None:
        """Do nothing: the shard never changes."""


class LocalLimiter(NoLimiter):
    """Counts, and refuses at once what the limiter would let wait: nobody else inserts or samples meanwhile."""

    def __init__(self, limiter: Limiter, shard: Shard) -> None:
        self.counts = limiter
        self._shard = shard
        self._born = asdict(shard.counts())
        self.update()

    def update(self) -> None:
        """Read the counts of the shard."""
        self.counts.report(0, _LIFE, asdict(self._shard.counts()), self._born)

    def await_insert(self, deadline: float) -> None:
        """Raise ReplayTimeout if the insert is not admitted."""
        self.update()
        if reason := self.counts.insert_block():
            raise ReplayTimeout(f"{reason}; {_NO_HELP}")

    def sample(self, draw: Callable[[], Sample], view: View, deadline: float, turns: int = 0) -> Sample:
        """Return the sample of `draw`, or raise its error. Raises ReplayTimeout if the sample is not admitted."""
        self.update()
        # Of an empty replay `draw` raises EmptyViewError, which says more.
        if self.counts.inserted_turns and (reason := self.counts.sample_block(view)):
            raise ReplayTimeout(f"{reason}; {_NO_HELP}")
        sample = draw()
        self.counts.sampled[view] += sample.turns_drawn
        return sample


class LocalClient(BaseClient):
    """Owns the replay that it is the client of.

    Its shard is in memory, whatever `shards`, `durability` and `replication` of `config` are: the episodes since the
    last checkpoint end with the process.

    Args:
        directory: the replay's folder, where a restored checkpoint is read from.
        restore: the checkpoint to begin with, of one shard; None begins empty. Raises LogError for more shards.
    """

    def __init__(self, config: ReplayConfig, directory: Path, *, seed: int, restore: Path | None = None) -> None:
        alone = {"shards": 1, "durability": "memory", "replication": 1, "local_dir": None}
        self.config = config.model_copy(update=alone)
        limiter = Limiter(self.config)
        if restore is not None:
            _restore(restore, directory, limiter)
        self._shard = Shard(0, self.config, shard_directory(directory, 0), ShardMetrics())
        self._counts = LocalLimiter(limiter, self._shard)
        rng = np.random.default_rng(seed)
        super().__init__(_OneShard(self._shard), self._counts, rng=rng, timeout_s=config.timeout_s)

    def stats(self) -> Stats:
        """Return the counts."""
        self._counts.update()
        held, totals = self._shard.counts(), self._counts.counts
        return Stats(
            episodes=held.episodes,
            turns=held.turns,
            inserted_episodes=totals.inserted_episodes,
            inserted_turns=totals.inserted_turns,
            sampled_turns=totals.sampled_turns,
            bytes=held.bytes,
            evicted=totals.inserted_episodes - held.episodes,
        )

    def checkpoint(self, directory: Path) -> None:
        """Write rows, order, priorities and counts under `directory`, which must hold no complete checkpoint.

        The checkpoint is that of a replay of one shard, from which a `ReplayService` can start as well.
        """
        directory = Path(directory).absolute()
        prepare_checkpoint(directory)
        counts = self._shard.checkpoint(shard_directory(directory, 0))
        self._counts.update()
        write_atomic(directory / STATE_FILE, json.dumps(self._counts.counts.state_dict()))
        write_manifest(directory, Manifest(1), counts=[counts])


def _restore(checkpoint: Path, directory: Path, limiter: Limiter) -> None:
    shards = read_manifest(checkpoint).shards
    if shards != 1:
        raise LogError(
            f"{checkpoint} has {shards} shards, and a replay in one process has one; continue this run in the mode in "
            "which it began"
        )
    restore_checkpoint(checkpoint, directory)
    if (state := directory / STATE_FILE).exists():
        limiter.load_state_dict(json.loads(state.read_text()))
