"""The rows that a shard holds in memory: known ids, eviction, and copying drawn rows out.

Rows are held packed (`buffer.episodes.packing`) in blocks that never change, in the order of their append. Calls are
not synchronised here: the shard holds a lock around all of them. The iterator that `gather` returns needs no lock,
because it only reads memory that no longer changes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa

from buffer.config import ReplayConfig
from buffer.episodes.packing import ROW_SCHEMA, pack
from buffer.episodes.schema import MESSAGES_TYPE, ragged_parts
from buffer.episodes.wire import binary_array, to_wire
from buffer.sampling.sample import Draws
from buffer.shard.index import RowIndex
from buffer.shard.sliding_array import SlidingArray

_Piece = TypeVar("_Piece")
# Threads cost more than they save on inputs this small.
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
BLOCK_BYTES = 1 << 20
"""Size of a block. A block is freed when its last row is evicted, so small blocks waste little memory."""
_BATCH_ROWS = 256
_BATCH_BYTES = 32 << 20  # Limits of one gathered batch
_MESSAGES_SCHEMA: pa.Schema = ROW_SCHEMA.append(pa.field("messages", MESSAGES_TYPE))


@dataclass(frozen=True)
class _Messages:
    """The messages of one append, compressed: people read them now and then, samplers never."""

    first_row: int
    data: pa.Buffer


class _Shared(Generic[_Piece]):
    """Objects that each serve some consecutive rows; an object is freed with the last of its rows."""

    def __init__(self) -> None:
        self._pieces: dict[int, _Piece] = {}
        self._next = 0
        self._of_row = SlidingArray(np.int64)  # Number of each row's object

    def add(self, piece: _Piece, rows: int) -> None:
        """Append an object for the next `rows` rows."""
        self._pieces[self._next] = piece
        self._of_row.extend(np.full(rows, self._next))
        self._next += 1

    def drop(self, count: int) -> None:
        """Drop the oldest `count` rows; at least one row must be left."""
        first = int(self._of_row.view()[0])
        self._of_row.drop(count)
        for number in range(first, int(self._of_row.view()[0])):
            del self._pieces[number]

    def of(self, rows: np.ndarray, *, distinct: bool = False) -> list[_Piece]:
        """Return the object of each row, or each of these objects once, in order."""
        numbers = self._of_row.view()[rows]
        return [self._pieces[number] for number in (np.unique(numbers) if distinct else numbers).tolist()]


class Store:
    """Packed rows in blocks, and the index over them."""

    def __init__(self, config: ReplayConfig) -> None:
        self._config = config
        self.index = RowIndex(priority_exponent=config.priority_exponent)
        self._next_row = 0  # Rows ever appended to this object; the number of a row within it counts from the first
        self._blocks: _Shared[memoryview] = _Shared()
        self._start = SlidingArray(np.int64)
        self._end = SlidingArray(np.int64)  # First byte of each row in its block, and the byte after its last
        self._messages: _Shared[_Messages] = _Shared()
        self.ids: dict[str, int] = {}
        """`seq` of each known id, ascending: of rows held, and of evicted rows until `forget_before`."""

    def append(self, batch: pa.RecordBatch, first_seq: int) -> int:
        """Hold rows of `EPISODE_SCHEMA` with new ids and evict the oldest rows; returns how many were evicted."""
        rows = batch.num_rows
        if rows == 0:
            return 0
        packed, bounds = pack(to_wire(batch))
        self._keep_packed(packed, bounds)
        messages = self._keep_messages(batch.column("messages"))
        self.index.extend(
            first_seq,
            turns=np.diff(ragged_parts(batch.column("action_start"))[0]).astype(np.int64),
            oldest_version=_per_row(np.minimum, batch.column("versions"), np.int32),
            created=batch.column("created_at").cast(pa.int64()).to_numpy() * 1e-6,
            ret=_per_row(np.add, batch.column("reward"), np.float64),
            # Messages are compressed together; each row counts an equal part of them.
            sizes=np.diff(bounds) + -(-messages // rows),
        )
        self.ids.update((name, seq) for seq, name in enumerate(batch.column("episode_id").to_pylist(), first_seq))
        self._next_row += rows
        return self._evict()

    def _keep_packed(self, packed: memoryview, bounds: np.ndarray) -> None:
        first, rows = 0, len(bounds) - 1
        while first < rows:
            end = max(first + 1, int(np.searchsorted(bounds, bounds[first] + BLOCK_BYTES, side="right")) - 1)
            piece = packed[bounds[first] : bounds[end]]
            # An append larger than a block is copied, so that a part of it can be freed before the rest.
            self._blocks.add(memoryview(piece.tobytes()) if end - first < rows else piece, end - first)
            self._start.extend(bounds[first:end] - bounds[first])
            self._end.extend(bounds[first + 1 : end + 1] - bounds[first])
            first = end

    def _keep_messages(self, column: pa.Array) -> int:
        """Keep the messages of an append; returns their compressed size in bytes."""
        sink = pa.BufferOutputStream()
        batch = pa.RecordBatch.from_arrays([column], names=["messages"])
        with pa.ipc.new_stream(sink, batch.schema, options=_COMPRESSED) as writer:
            writer.write_batch(batch)
        data = sink.getvalue()
        self._messages.add(_Messages(self._next_row, data), len(column))
        return int(data.size)

    def _evict(self) -> int:
        count = self.index.excess(self._config.capacity_per_shard, self._config.bytes_per_shard)
        if count <= 0:
            return 0
        for part in (self.index, self._blocks, self._start, self._end, self._messages):
            part.drop(count)
        return count

    def forget_before(self, seq: int) -> None:
        """Forget the ids of rows before `seq`, all evicted: an append with such an id is new again."""
        for name in list(takewhile(lambda name: self.ids[name] < seq, self.ids)):
            del self.ids[name]

    def gather(self, draws: Draws, *, messages: bool) -> tuple[Draws, Iterator[pa.RecordBatch]]:
        """Return the draws over their distinct rows, and an iterator that copies these rows out, in batches.

        `draws.rows` are indices of rows held; in the result they are indices among the distinct rows.
        """
        rows, row_of_draw = np.unique(draws.rows, return_inverse=True)
        bounds = (array.view()[rows].tolist() for array in (self._start, self._end))
        packed = [block[start:end] for block, start, end in zip(self._blocks.of(rows), *bounds, strict=True)]
        compressed = self._messages.of(rows, distinct=True) if messages else None
        oldest = self._next_row - len(self.index)
        return replace(draws, rows=row_of_draw.astype(np.int32)), _batches(packed, compressed, rows + oldest)


def sample_schema(messages: bool) -> pa.Schema:
    """Return the schema of gathered batches."""
    return _MESSAGES_SCHEMA if messages else ROW_SCHEMA


def _batches(
    packed: list[memoryview], compressed: list[_Messages] | None, rows: np.ndarray
) -> Iterator[pa.RecordBatch]:
    """Yield packed rows, and their messages if any are given, in bounded batches; at least one batch.

    `rows` are the numbers of the rows within the store, ascending.
    """
    schema = sample_schema(compressed is not None)
    if not packed:
        yield pa.RecordBatch.from_pylist([], schema=schema)
    first = 0
    while first < len(packed):
        end, size = first, 0
        while end < len(packed) and end - first < _BATCH_ROWS and (end == first or size < _BATCH_BYTES):
            size += packed[end].nbytes
            end += 1
        piece = packed[first:end]
        columns = [binary_array(b"".join(piece), np.array([row.nbytes for row in piece]))]
        if compressed is not None:
            columns.append(_read_messages(compressed, rows[first:end]))
        yield pa.RecordBatch.from_arrays(columns, schema=schema)
        first = end


def _read_messages(compressed: list[_Messages], rows: np.ndarray) -> pa.Array:
    """Return the messages of each row from the appends that hold them."""
    firsts = np.array([append.first_row for append in compressed])
    appends = np.searchsorted(firsts, rows, side="right") - 1
    pieces = []
    for append in np.unique(appends):
        messages = pa.ipc.open_stream(compressed[append].data).read_next_batch().column(0)
        pieces.append(messages.take(pa.array(rows[appends == append] - firsts[append])))
    return pa.concat_arrays(pieces)


def _per_row(reduce: np.ufunc, column: pa.ListArray, dtype: type) -> np.ndarray:
    """Reduce the numbers of each row of a list column to one; no row may be empty."""
    offsets, flat = ragged_parts(column)
    return reduce.reduceat(flat[: offsets[-1]], offsets[:-1], dtype=dtype)
