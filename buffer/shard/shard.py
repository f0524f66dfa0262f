"""A shard without its network: the rows in memory, the log, and the locks between them.

Invariant: a row enters memory only after the log has it. So every sampled row survives, and an append that fails leaves
both as they were.
"""

import logging
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from buffer.config import ReplayConfig
from buffer.episodes.packing import unpack
from buffer.episodes.schema import episodes_to_batch, new_rows, ragged_parts
from buffer.episodes.validation import validate
from buffer.errors import ReplayError, SchemaError
from buffer.log.folders import link_shard
from buffer.log.priorities import read_priorities, write_priorities
from buffer.log.write_ahead import Recovery, Segment, WriteAheadLog, read_log
from buffer.metrics import ShardMetrics
from buffer.sampling.request import RowFilter, Sampler, Unit
from buffer.sampling.sample import Draws
from buffer.shard.store import Store

logger = logging.getLogger(__name__)

MAX_BATCH_BYTES = 1 << 29
_REMEMBERED_IDS = 4096  # Evicted ids that a shard without a log remembers, at least
_DUMP_SEGMENT_BYTES = 64 << 20


@dataclass(frozen=True)
class ShardCounts:
    """Counts of one shard; `inserted_*` count since the replay began and survive restarts with the log."""

    episodes: int
    turns: int
    inserted_episodes: int
    inserted_turns: int
    bytes: int
    log_bytes: int


class Shard:
    """The rows of one shard. The constructor recovers them from the log. Thread-safe."""

    def __init__(self, index: int, config: ReplayConfig, directory: Path, metrics: ShardMetrics) -> None:
        self.index = index
        self.config = config
        self.metrics = metrics
        self.recovery = Recovery()
        self._directory = directory
        self._store = Store(config)
        self._inserted_episodes = 0
        self._inserted_turns = 0
        self._write = threading.Lock()  # Serialises appends and checkpoints
        self._read = threading.Lock()  # Held while the store is changed or drawn from; never during a write to disk
        self._log: WriteAheadLog | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self._recover()
        metrics.episodes.set_function(lambda: self.counts().episodes)
        metrics.turns.set_function(lambda: self.counts().turns)
        metrics.bytes.set_function(lambda: self.counts().bytes)
        metrics.log_bytes.set_function(lambda: self.counts().log_bytes)
        metrics.oldest.set_function(self._oldest)
        metrics.capacity_turns.set(config.capacity_per_shard)

    def _recover(self) -> None:
        segments: dict[Path, Segment] = {}
        for segment, frame in read_log(self._directory, self.recovery, repair=True):
            segments[segment.path] = segment
            self._store.append(frame.batch, frame.first_row)
            self._inserted_episodes = frame.first_row + frame.batch.num_rows
            self._inserted_turns = frame.turns_before + _turns(frame.batch)
        if self.config.durability != "memory":
            self._log = WriteAheadLog(
                self._directory, durability=self.config.durability, segment_bytes=self.config.segment_bytes
            )
            self._log.adopt(list(segments.values()))
        if (priorities := read_priorities(self._directory)) is not None:
            self._store.index.load_state(priorities)
        self.metrics.torn.inc(self.recovery.torn_bytes)
        self.metrics.damaged.inc(len(self.recovery.damaged))

    def append(self, batch: pa.RecordBatch) -> int:
        """Store the rows (list layout) with new ids, durably; returns how many.

        Raises SchemaError, DiskFullError or LogError; then nothing of the batch is stored.
        """
        try:
            if batch.nbytes > MAX_BATCH_BYTES:
                raise SchemaError(f"a batch of {batch.nbytes} bytes; append at most {MAX_BATCH_BYTES} bytes at once")
            validate(batch)
            with self._write, self.metrics.append_seconds.time():
                return self._append_new(batch)
        except ReplayError:
            self.metrics.refused.inc()
            raise

    def _append_new(self, batch: pa.RecordBatch) -> int:
        new = new_rows(batch, self._store.ids)
        self.metrics.duplicates.inc(batch.num_rows - len(new))
        if not new:
            return 0
        if len(new) < batch.num_rows:
            batch = batch.take(pa.array(new))
        if self._log is not None:
            self._log.append(batch, self._inserted_episodes, self._inserted_turns)
        with self._read:
            evicted = self._store.append(batch, self._inserted_episodes)
            self._inserted_episodes += len(new)
            self._inserted_turns += _turns(batch)
        if evicted:
            self._compact()
        self.metrics.appended.inc(len(new))
        self.metrics.appended_turns.inc(_turns(batch))
        self.metrics.evicted.inc(evicted)
        return len(new)

    def _compact(self) -> None:
        """Drop log segments whose rows are all evicted, and forget the ids in them."""
        oldest = int(self._store.index.seq.view()[0])
        if self._log is not None:
            kept = self._log.drop_before(oldest)
        else:
            kept = oldest - max(_REMEMBERED_IDS, len(self._store.index))
        if kept is not None:
            with self._read:
                self._store.forget_before(kept)

    def draw(
        self,
        count: int,
        *,
        unit: Unit,
        only: RowFilter,
        seed: int,
        sampler: Sampler = "uniform",
        messages: bool = False,
    ) -> tuple[Draws, Iterator[pa.RecordBatch]]:
        """Draw `count` turns or episodes with a generator of `seed`; returns the draws and their distinct rows.

        The rows come in the layout of `buffer.episodes.packing`. Raises EmptyViewError if the view is empty.
        """
        rng = np.random.default_rng(seed)
        with self._read:
            draws = self._store.index.draw(count, unit=unit, only=only, sampler=sampler, rng=rng)
            self.metrics.sampled.inc(count)
            return self._store.gather(draws, messages=messages)

    def sweep(self, only: RowFilter, *, messages: bool = False) -> tuple[Draws, Iterator[pa.RecordBatch]]:
        """Return every row that passes the filter at this moment once, oldest first, as `draw` does."""
        draws, batches = self._every(only, messages)
        self.metrics.sampled.inc(len(draws))
        return draws, batches

    def _every(self, only: RowFilter, messages: bool) -> tuple[Draws, Iterator[pa.RecordBatch]]:
        with self._read:
            return self._store.gather(self._store.index.every(only), messages=messages)

    def update_priorities(self, seqs: np.ndarray, turns: np.ndarray, priorities: np.ndarray) -> int:
        """Set the priorities of turns; see `RowIndex.update`."""
        with self._read:
            known = self._store.index.update(seqs, turns, priorities)
        self.metrics.priorities.inc(known)
        return known

    @contextmanager
    def reading(self) -> Iterator[Store]:
        """Lock the store for the block, which must only read it."""
        with self._read:
            yield self._store

    def counts(self) -> ShardCounts:
        """Return all counts at one moment."""
        with self._read:
            index = self._store.index
            return ShardCounts(
                episodes=len(index),
                turns=index.turns,
                inserted_episodes=self._inserted_episodes,
                inserted_turns=self._inserted_turns,
                bytes=index.bytes,
                log_bytes=self._log.size if self._log else 0,
            )

    def _oldest(self) -> float:
        with self._read:
            return self._store.index.oldest

    def segments(self) -> list[Segment]:
        """Return the segments of the log as they are now; every one ends after a whole frame."""
        with self._write:
            return [] if self._log is None else [replace(segment) for segment in self._log.segments()]

    def checkpoint(self, directory: Path) -> dict[str, Any]:
        """Write all rows and priorities under `directory`, replacing what is there; returns the counts.

        Appends wait while segments are hard-linked beside the log. They do not wait while segments are copied to
        another disk, or while the rows of a shard without a log are written.
        """
        staging = self._directory / "leaving"
        for folder in (directory, staging):
            if folder.exists():
                shutil.rmtree(folder)
        directory.mkdir(parents=True)
        rows = None
        with self._write:
            counts, priorities = self.counts(), self._priorities()
            if self._log is not None:
                staging.mkdir()
                self._log.link_to(staging)
            else:
                rows = self._every(RowFilter(), messages=True)
        if rows is not None:
            _dump(directory, *rows, turns_before=counts.inserted_turns - counts.turns)
        else:
            link_shard(staging, directory)
            shutil.rmtree(staging)
        write_priorities(directory, priorities)
        return {"shard": self.index, **asdict(counts)}

    def _priorities(self) -> dict[str, np.ndarray]:
        with self._read:
            return self._store.index.state()

    def close(self) -> None:
        """Seal the log and write the priorities; a later append begins a new segment."""
        with self._write:
            if self._log is not None:
                self._log.close()
                write_priorities(self._directory, self._priorities())


def _dump(directory: Path, draws: Draws, batches: Iterator[pa.RecordBatch], *, turns_before: int) -> None:
    """Write rows that have no log as a log, with their place in the shard's history."""
    log = WriteAheadLog(directory, durability="flush", segment_bytes=_DUMP_SEGMENT_BYTES)
    seqs = draws.seqs
    for packed in batches if len(seqs) else ():
        batch = episodes_to_batch(unpack(packed))
        log.append(batch, int(seqs[0]), turns_before)
        seqs = seqs[batch.num_rows :]
        turns_before += _turns(batch)
    log.close()


def _turns(batch: pa.RecordBatch) -> int:
    offsets, _ = ragged_parts(batch.column("action_start"))
    return int(offsets[-1] - offsets[0])
