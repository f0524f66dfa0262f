"""Columns in memory: arrays that grow at one end and are forgotten at the other, and chunks of episodes.

A chunk holds its number and text columns as binary in one arena each, so `take` over it copies one piece of
memory per row and column. Written memory never changes: views handed out stay right while the chunk grows.
"""

import numpy as np
import pyarrow as pa

from buffer.schema import CREATED_TYPE, RAGGED_DTYPES
from buffer.wire import SAMPLE_SCHEMA, binary_parts

TEXT = ("episode_id", "env", "task_id", "worker")
VARIABLE = (*TEXT, *RAGGED_DTYPES)
FIXED: dict[str, np.dtype] = {"seed": np.dtype(np.int64), "created_at": np.dtype(np.int64)}
FLAGS = ("terminated", "truncated", "success")


class Growable:
    """A numpy array that grows by doubling; `view()` stays valid, and unchanged, while it grows."""

    def __init__(self, dtype: np.dtype | type, capacity: int = 64) -> None:
        self._data = np.empty(capacity, dtype)
        self.size = 0

    def extend(self, values: np.ndarray) -> None:
        """Append `values`."""
        end = self.size + len(values)
        if end > len(self._data):
            grown = np.empty(max(end, 2 * len(self._data)), self._data.dtype)
            grown[: self.size] = self._data[: self.size]
            self._data = grown
        self._data[self.size : end] = values
        self.size = end

    def view(self) -> np.ndarray:
        """Everything appended so far, without copying."""
        return self._data[: self.size]

    def trim(self) -> None:
        """Give back the room beyond the end."""
        self._data = self._data[: self.size].copy()


class Window:
    """A numpy array appended to at its end and dropped from at its front; memory follows what is held."""

    def __init__(self, dtype: np.dtype | type) -> None:
        self._data = Growable(dtype)
        self._start = 0

    def __len__(self) -> int:
        return self._data.size - self._start

    def extend(self, values: np.ndarray) -> None:
        """Append `values` at the end."""
        self._data.extend(values)

    def drop(self, count: int) -> None:
        """Forget the oldest `count`."""
        self._start += count
        if self._start > 1024 and self._start > len(self):
            kept = Growable(self._data.view().dtype, max(64, len(self)))
            kept.extend(self.view())
            self._data, self._start = kept, 0

    def view(self) -> np.ndarray:
        """What is held, oldest first, without copying."""
        return self._data.view()[self._start :]


class _Arena:
    """One binary or string column."""

    def __init__(self) -> None:
        self.offsets = Growable(np.int32)
        self.offsets.extend(np.zeros(1, np.int32))
        self.data = Growable(np.uint8, 1024)

    def extend(self, column: pa.Array) -> None:
        offsets, data = binary_parts(column)
        self.data.extend(data[offsets[0] : offsets[-1]])
        base = int(self.offsets.view()[-1]) - int(offsets[0])
        self.offsets.extend(offsets[1:] + base)

    def array(self, kind: pa.DataType) -> pa.Array:
        offsets = self.offsets.view()
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(self.data.view())]
        return pa.Array.from_buffers(kind, len(offsets) - 1, buffers)


class Chunk:
    """Some thousands of consecutive rows of a shard, growing until sealed.

    `first_row` counts rows since the store was made.
    """

    def __init__(self, first_row: int) -> None:
        self.first_row = first_row
        self.rows = 0
        self.bytes = 0
        self._arenas = {name: _Arena() for name in VARIABLE}
        self._fixed = {name: Growable(dtype) for name, dtype in FIXED.items()}
        self._flags = {name: Growable(np.int8) for name in FLAGS}
        self._table: pa.RecordBatch | None = None

    def extend(self, batch: pa.RecordBatch) -> None:
        """Append rows in wire layout."""
        for name, arena in self._arenas.items():
            arena.extend(batch.column(name))
        for name, dtype in FIXED.items():
            column = batch.column(name)
            column = column if column.type == pa.int64() else column.cast(pa.int64())
            self._fixed[name].extend(column.to_numpy().astype(dtype, copy=False))
        for name in FLAGS:
            known = batch.column(name).cast(pa.int8()).fill_null(-1)
            self._flags[name].extend(known.to_numpy(zero_copy_only=False))
        self.rows += batch.num_rows
        self.bytes = sum(a.data.size + 4 * a.offsets.size for a in self._arenas.values()) + self.rows * (
            sum(dtype.itemsize for dtype in FIXED.values()) + len(FLAGS)
        )
        self._table = None

    def seal(self) -> None:
        """No more rows will come: give back spare room."""
        for arena in self._arenas.values():
            arena.offsets.trim()
            arena.data.trim()
        for column in (*self._fixed.values(), *self._flags.values()):
            column.trim()
        self._table = None

    def table(self) -> pa.RecordBatch:
        """All rows without copying, flags as int8 (a growing bit mask could not be shared)."""
        if self._table is None:
            columns: dict[str, pa.Array] = {}
            for name, arena in self._arenas.items():
                columns[name] = arena.array(pa.string() if name in TEXT else pa.binary())
            for name, growable in self._fixed.items():
                columns[name] = pa.array(growable.view())
            columns["created_at"] = columns["created_at"].cast(CREATED_TYPE)
            for name, growable in self._flags.items():
                columns[name] = pa.array(growable.view())
            self._table = pa.RecordBatch.from_pydict(columns)
        return self._table


def take_rows(table: pa.RecordBatch, rows: np.ndarray) -> pa.RecordBatch:
    """Rows of a chunk's `table()` as a batch of `SAMPLE_SCHEMA`, copied out."""
    taken = table.take(pa.array(rows, type=pa.int64()))
    columns = []
    for column in SAMPLE_SCHEMA:
        array = taken.column(column.name)
        if column.name in FLAGS:
            values = array.to_numpy()
            array = pa.array(values == 1, type=pa.bool_(), mask=values < 0)
        columns.append(array)
    return pa.RecordBatch.from_arrays(columns, schema=SAMPLE_SCHEMA)
