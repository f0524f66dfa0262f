"""A shard without its network: the store, its log, and the locks between them.

Invariant: a row is in the store only once the log has it, so that whatever was ever sampled survives, and an
append that fails leaves both as they were.
"""

import logging
import shutil
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from buffer.config import ReplayConfig
from buffer.episodes.packing import unpack
from buffer.episodes.schema import episodes_to_batch, ragged_parts, validate
from buffer.errors import EmptyViewError, ReplayError, SchemaError
from buffer.log.priorities import read_priorities, write_priorities
from buffer.log.write_ahead import Recovery, Segment, WriteAheadLog, link_or_copy, read_log, segment_paths
from buffer.metrics import ShardMetrics
from buffer.sampling.draws import Held
from buffer.sampling.request import Sampler, Unit
from buffer.sampling.row_filter import RowFilter
from buffer.shard.store import Plan, Store

logger = logging.getLogger(__name__)

MAX_BATCH_BYTES = 1 << 29
_REMEMBERED_IDS = 4096
_DUMP_SEGMENT_BYTES = 64 << 20


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
        self._store = Store(
            capacity_turns=config.capacity_per_shard,
            capacity_bytes=config.bytes_per_shard,
            priority_exponent=config.priority_exponent,
        )
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
        priorities = read_priorities(self._directory)
        if priorities is not None:
            self._store.index.load_state(priorities)
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

    def draw(
        self,
        count: int,
        *,
        unit: Unit,
        only: RowFilter,
        seed: int,
        sampler: Sampler = "uniform",
        messages: bool = False,
    ) -> Plan:
        """A sample of `count` draws with the random stream of `seed`. Raises EmptyViewError where the view is empty."""
        rng = np.random.default_rng(seed)
        with self._read:
            plan = self._store.draw(count, unit=unit, only=only, sampler=sampler, messages=messages, rng=rng)
        if plan is None:
            raise EmptyViewError(f"shard {self.index} holds no episode{only}")
        self.metrics.sampled.inc(count)
        return plan

    def sweep(self, only: RowFilter, *, messages: bool = False) -> Plan:
        """Every row that passes the filter at this moment, once, oldest first; of no rows where none does."""
        with self._read:
            plan = self._store.sweep(only, messages=messages)
        self.metrics.sampled.inc(len(plan.draws))
        return plan

    def update_priorities(self, seqs: np.ndarray, turns: np.ndarray, priorities: np.ndarray) -> int:
        """See `RowIndex.update`."""
        with self._read:
            known = self._store.index.update(seqs, turns, priorities)
        self.metrics.priorities.inc(known)
        return known

    def held(self, only: RowFilter, sampler: Sampler = "uniform") -> Held:
        """What passes the filter."""
        with self._read:
            return self._store.index.held(only, sampler)

    def view_returns(self, only: RowFilter) -> np.ndarray:
        """See `RowIndex.returns`."""
        with self._read:
            return self._store.index.returns(only)

    def known(self, ids: Sequence[str]) -> list[bool]:
        """Of each id whether an append of it would change nothing."""
        with self._read:
            return [self._store.knows(name) for name in ids]

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

    def segments(self) -> list[Segment]:
        """The log as it is now: whole frames alone."""
        with self._write:
            return [] if self._log is None else [replace(segment) for segment in self._log.segments()]

    def checkpoint(self, directory: Path) -> dict[str, Any]:
        """Put every row so far and its priorities under `directory`; a second call starts over.

        Writers wait while segments are linked beside the log, and not while they are copied to another disk or the
        rows of a shard without a log are written.
        """
        for folder in (directory, staging := self._directory / "leaving"):
            if folder.exists():
                shutil.rmtree(folder)
        directory.mkdir(parents=True)
        with self._write:
            counts, priorities = self.counts(), self._priorities()
            if self._log is not None:
                staging.mkdir()
                self._log.link_to(staging)
                rows = None
            else:
                rows = self._snapshot()
        if rows is not None:
            self._dump(directory, *rows)
        else:
            for path in segment_paths(staging):
                link_or_copy(path, directory / path.name)
            shutil.rmtree(staging)
        write_priorities(directory, priorities)
        return {"shard": self.index, **counts.as_dict()}

    def _priorities(self) -> dict[str, np.ndarray]:
        with self._read:
            return self._store.index.state()

    def _snapshot(self) -> tuple[Plan, int]:
        """Every row, and the turns ever inserted before the first of them."""
        with self._read:
            return self._store.sweep(RowFilter(), messages=True), self._inserted_turns - self._store.turns

    @staticmethod
    def _dump(directory: Path, rows: Plan, turns: int) -> None:
        log = WriteAheadLog(directory, durability="flush", segment_bytes=_DUMP_SEGMENT_BYTES)
        seqs = rows.draws.seqs
        for packed in rows.gather() if len(seqs) else ():
            batch = episodes_to_batch(unpack(packed))
            log.append(batch, int(seqs[0]), turns)
            seqs = seqs[batch.num_rows :]
            turns += _turns(batch)
        log.close()

    def close(self) -> None:
        """Seal the log and keep the priorities; appends after this begin a new segment."""
        with self._write:
            if self._log is not None:
                self._log.close()
                write_priorities(self._directory, self._priorities())

    def _publish(self) -> None:
        counts = self.counts()
        self.metrics.episodes.set(counts.episodes)
        self.metrics.turns.set(counts.turns)
        self.metrics.bytes.set(counts.bytes)
        self.metrics.log_bytes.set(counts.log_bytes)


def _turns(batch: pa.RecordBatch) -> int:
    offsets, _ = ragged_parts(batch.column("action_start"))
    return int(offsets[-1] - offsets[0])
