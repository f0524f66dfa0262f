"""The rows a shard holds, without log or network: dedupe, eviction, filters, draws, gathering.

Rows are held in the order they were appended, packed (`buffer.rows`) in blocks that never change. `seq` is a row's
number in the shard's whole history, which outlives restarts. Calls are not synchronised here: the shard holds a lock
around all but `Plan.gather`, which touches only memory that no longer changes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from buffer.episodes.packing import ROW_SCHEMA, pack
from buffer.episodes.schema import MESSAGES_TYPE, new_rows, ragged_parts
from buffer.episodes.wire import to_wire
from buffer.sampling.draws import Draws
from buffer.sampling.request import Sampler, Unit
from buffer.sampling.row_filter import RowFilter
from buffer.shard.index import RowIndex, RowNumbers
from buffer.shard.sliding_array import Window

# Threads would cost more than they save on so little.
_COLD = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
BLOCK_BYTES = 1 << 20
"""A block goes once its last row is evicted: small, so that little is held for nothing."""
_BATCH_ROWS = 256
_BATCH_BYTES = 32 << 20
"""Bounds of one batch that is gathered: enough to amortise it, few enough that none is huge."""
_MESSAGES_SCHEMA: pa.Schema = ROW_SCHEMA.append(pa.field("messages", MESSAGES_TYPE))


@dataclass(frozen=True)
class _ColdMessages:
    """The messages of one append, compressed: people read them now and then, samplers never."""

    first_row: int
    data: pa.Buffer

    def read(self) -> pa.Array:
        return pa.ipc.open_stream(self.data).read_next_batch().column(0)


@dataclass(frozen=True)
class Plan:
    """What was drawn, and the memory that it lies in. A sweep draws every row once, in order."""

    draws: Draws
    """Rows are indices into the gathered ones."""
    _rows: np.ndarray
    """int64[k], the distinct rows, rising, by their number within the store."""
    _packed: list[memoryview]
    _cold: list[_ColdMessages] | None
    """The appends that the rows came in; None where messages are not asked for."""

    @property
    def schema(self) -> pa.Schema:
        """Of the batches gathered."""
        return ROW_SCHEMA if self._cold is None else _MESSAGES_SCHEMA

    def gather(self) -> Iterator[pa.RecordBatch]:
        """Copy the distinct rows out in order, in batches of bounded size; at least one batch."""
        if not self._packed:
            yield pa.RecordBatch.from_pylist([], schema=self.schema)
        first = 0
        while first < len(self._packed):
            end, size = first, 0
            while end < len(self._packed) and end - first < _BATCH_ROWS and (end == first or size < _BATCH_BYTES):
                size += self._packed[end].nbytes
                end += 1
            packed = self._packed[first:end]
            offsets = np.zeros(len(packed) + 1, np.int32)
            np.cumsum([row.nbytes for row in packed], out=offsets[1:])
            buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(packed))]
            columns = [pa.Array.from_buffers(pa.binary(), len(packed), buffers)]
            if self._cold is not None:
                columns.append(_messages(self._cold, self._rows[first:end]))
            yield pa.RecordBatch.from_arrays(columns, schema=self.schema)
            first = end


def _messages(cold: list[_ColdMessages], rows: np.ndarray) -> pa.Array:
    """The messages of each row, out of the appends that hold them."""
    firsts = np.array([part.first_row for part in cold])
    home = np.searchsorted(firsts, rows, side="right") - 1
    pieces = [cold[index].read().take(pa.array(rows[home == index] - firsts[index])) for index in np.unique(home)]
    return pa.concat_arrays(pieces)


class Store:
    """Packed rows in blocks, and an index over them."""

    def __init__(
        self, *, capacity_turns: int, capacity_bytes: float = float("inf"), priority_exponent: float = 0.6
    ) -> None:
        self.capacity_turns = capacity_turns
        self.capacity_bytes = capacity_bytes
        self.index = RowIndex(priority_exponent=priority_exponent)
        self._next_row = 0
        """Rows this store ever held; a row's number within it counts from the first."""
        self._blocks: dict[int, memoryview] = {}
        """By number; those of rows that are held, and of no others."""
        self._next_block = 0
        self._block = Window(np.int64)
        self._start = Window(np.int64)
        self._end = Window(np.int64)
        """Where each row lies: block, first byte and the one behind its last."""
        self._cold: dict[int, _ColdMessages] = {}
        """By the number of the append that they came in."""
        self._next_append = 0
        self._append = Window(np.int64)
        self._ids: dict[str, int] = {}
        """seq of each id known: those held, and evicted ones until `forget_before`. In order of seq."""

    @property
    def episodes(self) -> int:
        """Episodes held."""
        return len(self.index)

    @property
    def turns(self) -> int:
        """Turns held."""
        return self.index.turns

    @property
    def bytes(self) -> int:
        """Bytes of the rows held and their messages."""
        return self.index.bytes

    @property
    def oldest_seq(self) -> int | None:
        """`seq` of the oldest row held."""
        return int(self.index.seq.view()[0]) if len(self.index) else None

    def ids(self) -> list[str]:
        """Ids held, oldest first."""
        oldest = self.oldest_seq
        return [] if oldest is None else [name for name, seq in self._ids.items() if seq >= oldest]

    def knows(self, episode_id: str) -> bool:
        """Whether an append of this id would change nothing."""
        return episode_id in self._ids

    def fresh_rows(self, batch: pa.RecordBatch) -> np.ndarray:
        """int64[k], the rows of the batch whose id is not known; of rows with the same id the first."""
        return np.array(new_rows(batch, self._ids), dtype=np.int64)

    def append(self, batch: pa.RecordBatch, first_seq: int) -> int:
        """Hold rows of `EPISODE_SCHEMA` whose ids are new, evicting the oldest; returns how many it evicted."""
        rows = batch.num_rows
        if rows == 0:
            return 0
        packed, bounds = pack(to_wire(batch))
        self._keep_packed(packed, bounds)
        messages = self._keep_messages(batch.column("messages"))
        numbers = RowNumbers(
            turns=np.diff(ragged_parts(batch.column("action_start"))[0]).astype(np.int64),
            oldest_version=_per_row(np.minimum, batch.column("versions"), np.int32),
            ret=_per_row(np.add, batch.column("reward"), np.float64),
            # Messages are compressed together; each row counts for its part of them.
            bytes=np.diff(bounds) + -(-messages // rows),
        )
        self.index.extend(first_seq, numbers)
        for seq, name in enumerate(batch.column("episode_id").to_pylist(), first_seq):
            self._ids[name] = seq
        self._next_row += rows
        return self._evict()

    def _keep_packed(self, packed: memoryview, bounds: np.ndarray) -> None:
        first, rows = 0, len(bounds) - 1
        while first < rows:
            end = max(first + 1, int(np.searchsorted(bounds, bounds[first] + BLOCK_BYTES, side="right")) - 1)
            piece = packed[bounds[first] : bounds[end]]
            # A copy where the append is larger than a block, so that a part of it can go before the rest.
            self._blocks[self._next_block] = memoryview(piece.tobytes()) if end - first < rows else piece
            self._block.extend(np.full(end - first, self._next_block))
            self._start.extend(bounds[first:end] - bounds[first])
            self._end.extend(bounds[first + 1 : end + 1] - bounds[first])
            self._next_block += 1
            first = end

    def _keep_messages(self, column: pa.Array) -> int:
        """Returns the bytes that they take."""
        sink = pa.BufferOutputStream()
        batch = pa.RecordBatch.from_arrays([column], names=["messages"])
        with pa.ipc.new_stream(sink, batch.schema, options=_COLD) as writer:
            writer.write_batch(batch)
        data = sink.getvalue()
        self._cold[self._next_append] = _ColdMessages(self._next_row, data)
        self._append.extend(np.full(len(column), self._next_append))
        self._next_append += 1
        return int(data.size)

    def _evict(self) -> int:
        count = self.index.excess(self.capacity_turns, self.capacity_bytes)
        if count <= 0:
            return 0
        block, append = int(self._block.view()[0]), int(self._append.view()[0])
        self.index.drop(count)
        for window in (self._block, self._start, self._end, self._append):
            window.drop(count)
        for number in range(block, int(self._block.view()[0])):
            del self._blocks[number]
        for number in range(append, int(self._append.view()[0])):
            del self._cold[number]
        return count

    def forget_before(self, seq: int) -> None:
        """Forget the ids of rows before `seq` that are no longer held: an append with such an id is new again."""
        oldest = self.oldest_seq
        limit = seq if oldest is None else min(seq, oldest)
        gone = []
        for name, known in self._ids.items():
            if known >= limit:
                break
            gone.append(name)
        for name in gone:
            del self._ids[name]

    def draw(
        self,
        count: int,
        *,
        unit: Unit,
        only: RowFilter,
        sampler: Sampler = "uniform",
        messages: bool = False,
        rng: np.random.Generator,
    ) -> Plan | None:
        """See `RowIndex.draw`."""
        drawn = self.index.draw(count, unit=unit, only=only, sampler=sampler, rng=rng)
        if drawn is None:
            return None
        distinct, row_of_draw = np.unique(drawn.rows, return_inverse=True)
        seqs = self.index.seq.view()[drawn.rows]
        draws = Draws(row_of_draw.astype(np.int32), drawn.turn, seqs, drawn.probability, drawn.held)
        return self._plan(draws, distinct, messages)

    def sweep(self, only: RowFilter, *, messages: bool = False) -> Plan:
        """Every row that passes the filter once, oldest first."""
        rows = self.index.selected(only)
        count = len(rows)
        once, whole = np.arange(count, dtype=np.int32), np.full(count, -1, np.int32)
        draws = Draws(once, whole, self.index.seq.view()[rows], np.ones(count), self.index.held(only))
        return self._plan(draws, rows, messages)

    def _plan(self, draws: Draws, rows: np.ndarray, messages: bool) -> Plan:
        where = (window.view()[rows].tolist() for window in (self._block, self._start, self._end))
        packed = [self._blocks[block][start:end] for block, start, end in zip(*where, strict=True)]
        appends = np.unique(self._append.view()[rows]).tolist() if messages else None
        cold = None if appends is None else [self._cold[number] for number in appends]
        return Plan(draws, rows + self._oldest_row, packed, cold)

    @property
    def _oldest_row(self) -> int:
        return self._next_row - self.episodes


def _per_row(reduce: np.ufunc, column: pa.ListArray, dtype: type) -> np.ndarray:
    """The numbers of each row of a list column, none of them empty, reduced to one."""
    offsets, flat = ragged_parts(column)
    return reduce.reduceat(flat[: offsets[-1]], offsets[:-1], dtype=dtype)
