"""A shard without its network: the store, its log, and the locks between them.

Invariant: a row is in the store only once the log has it, so that whatever was ever sampled survives, and an
append that fails leaves both as they were.
"""

import logging
import shutil
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from buffer.config import ReplayConfig
from buffer.errors import EmptyViewError, ReplayError, SchemaError
from buffer.log import Recovery, Segment, WriteAheadLog, read_log
from buffer.metrics import ShardMetrics
from buffer.schema import ragged_parts, validate
from buffer.store import Plan, Store, Unit
from buffer.view import RowFilter

logger = logging.getLogger(__name__)

MAX_BATCH_BYTES = 1 << 29
_REMEMBERED_IDS = 4096


@dataclass(frozen=True)
class ShardCounts:
    """Numbers of one shard; `inserted_*` count since the replay began and survive restarts with the log."""

    episodes: int
    turns: int
    inserted_episodes: int
    inserted_turns: int
    bytes: int
    log_bytes: int

    def as_dict(self) -> dict[str, int]:
        """The numbers by name."""
        return asdict(self)


class Shard:
    """Rows of one shard: recovered at construction, appended to, drawn from, checkpointed. Thread-safe."""

    def __init__(self, index: int, config: ReplayConfig, directory: Path, metrics: ShardMetrics) -> None:
        self.index = index
        self.config = config
        self.metrics = metrics
        self.recovery = Recovery()
        self._directory = directory
        self._store = Store(capacity_turns=config.capacity_per_shard, chunk_bytes=config.chunk_bytes)
        self._inserted_episodes = 0
        self._inserted_turns = 0
        self._write = threading.Lock()
        """Held by appends and checkpoints, one after the other."""
        self._read = threading.Lock()
        """Held for the moments in which the store is changed or drawn from; never while writing to disk."""
        self._log: WriteAheadLog | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self._recover()

    def _recover(self) -> None:
        segments: dict[Path, Segment] = {}
        for segment, frame in read_log(self._directory, self.recovery, repair=True):
            segments[segment.path] = segment
            self._store.append(frame.batch, frame.first_row)
            self._inserted_episodes = frame.first_row + frame.batch.num_rows
            self._inserted_turns = frame.turns_before + _turns(frame.batch)
        if self.config.durability != "memory":
            self._log = WriteAheadLog(
                self._directory,
                durability=self.config.durability,
                segment_bytes=self.config.segment_bytes,
            )
            self._log.adopt(list(segments.values()))
        self.metrics.torn.inc(self.recovery.torn_bytes)
        self.metrics.damaged.inc(len(self.recovery.damaged))
        self._publish()

    def append(self, batch: pa.RecordBatch) -> int:
        """Store the rows (list layout) whose ids are new; returns how many. Durable on return.

        Raises SchemaError, DiskFullError or LogError; then nothing of the batch is stored.
        """
        try:
            if batch.nbytes > MAX_BATCH_BYTES:
                raise SchemaError(f"a batch of {batch.nbytes} bytes; append at most {MAX_BATCH_BYTES} bytes at once")
            validate(batch)
            with self._write:
                return self._append_new(batch)
        except ReplayError:
            self.metrics.refused.inc()
            raise

    def _append_new(self, batch: pa.RecordBatch) -> int:
        fresh = self._store.fresh_rows(batch)
        self.metrics.duplicates.inc(batch.num_rows - len(fresh))
        if len(fresh) == 0:
            return 0
        if len(fresh) < batch.num_rows:
            batch = batch.take(pa.array(fresh))
        if self._log is not None:
            self._log.append(batch, self._inserted_episodes, self._inserted_turns)
        with self._read:
            evicted = self._store.append(batch, self._inserted_episodes)
            self._inserted_episodes += len(fresh)
            self._inserted_turns += _turns(batch)
        if evicted:
            self._compact()
        self.metrics.appended.inc(len(fresh))
        self.metrics.evicted.inc(evicted)
        self._publish()
        return len(fresh)

    def _compact(self) -> None:
        """Give up log segments, and the ids in them, of which every row is evicted."""
        oldest = self._store.oldest_seq or 0
        if self._log is not None:
            kept = self._log.drop_before(oldest)
        else:
            kept = oldest - max(_REMEMBERED_IDS, self._store.episodes)
        if kept is not None:
            with self._read:
                self._store.forget_before(kept)

    def draw(self, count: int, *, unit: Unit, only: RowFilter, seed: int) -> Plan:
        """Draw uniformly with the random stream of `seed`. Raises EmptyViewError where nothing can be drawn."""
        rng = np.random.default_rng(seed)
        with self._read:
            plan = self._store.draw(count, unit=unit, only=only, rng=rng)
        if plan is None:
            raise EmptyViewError(f"shard {self.index} holds no episode{only}")
        self.metrics.sampled.inc(count)
        return plan

    def sweep(self, only: RowFilter) -> Plan:
        """Every row that passes the filter at this moment, once, oldest first; of no rows where none does."""
        with self._read:
            plan = self._store.sweep(only)
        self.metrics.sampled.inc(len(plan.row_of_draw))
        return plan

    def view_counts(self, only: RowFilter) -> tuple[int, int]:
        """(episodes, turns) that pass the filter."""
        with self._read:
            return self._store.counts(only)

    def view_returns(self, only: RowFilter) -> tuple[np.ndarray, np.ndarray]:
        """See `Store.returns`."""
        with self._read:
            return self._store.returns(only)

    def ids(self) -> list[str]:
        """Ids held, oldest first."""
        with self._read:
            return self._store.ids()

    def counts(self) -> ShardCounts:
        """All numbers at one moment."""
        with self._read:
            return ShardCounts(
                episodes=self._store.episodes,
                turns=self._store.turns,
                inserted_episodes=self._inserted_episodes,
                inserted_turns=self._inserted_turns,
                bytes=self._store.bytes,
                log_bytes=self._log.size if self._log else 0,
            )

    def checkpoint(self, directory: Path) -> dict[str, Any]:
        """Put every row so far under `directory` as sealed segments; a second call starts over."""
        if directory.exists():
            shutil.rmtree(directory)
        directory.mkdir(parents=True)
        with self._write:
            if self._log is not None:
                self._log.link_to(directory)
            else:
                self._dump(directory)
            return {"shard": self.index, **self.counts().as_dict()}

    def _dump(self, directory: Path) -> None:
        log = WriteAheadLog(directory, durability="flush", segment_bytes=self.config.segment_bytes)
        skipped = self._inserted_turns - self._store.turns_ever
        for seq, turns, batch in self._store.batches():
            log.append(batch, seq, turns + skipped)
        log.close()

    def close(self) -> None:
        """Seal the log; appends after this begin a new segment."""
        with self._write:
            if self._log is not None:
                self._log.close()

    def _publish(self) -> None:
        counts = self.counts()
        self.metrics.episodes.set(counts.episodes)
        self.metrics.turns.set(counts.turns)
        self.metrics.bytes.set(counts.bytes)
        self.metrics.log_bytes.set(counts.log_bytes)


def _turns(batch: pa.RecordBatch) -> int:
    offsets, _ = ragged_parts(batch.column("action_start"))
    return int(offsets[-1] - offsets[0])
