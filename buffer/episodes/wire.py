"""The layout of an append: number columns as binary instead of lists, over the same buffers.

Taking rows of a binary column costs one copy per row, of a list column one step per token. Both layouts share their
value buffers, so a conversion copies only the offsets.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from buffer.episodes.schema import EPISODE_SCHEMA, RAGGED_DTYPES
from buffer.errors import SchemaError

WIRE_SCHEMA: pa.Schema = pa.schema(
    [pa.field(column.name, pa.binary()) if column.name in RAGGED_DTYPES else column for column in EPISODE_SCHEMA],
    metadata=EPISODE_SCHEMA.metadata,
)
"""`EPISODE_SCHEMA` with the number columns as binary: the schema of an append."""


def check_wire(schema: pa.Schema) -> None:
    """Raise SchemaError unless the columns are those of `WIRE_SCHEMA`; `validate` checks the version."""
    if schema != WIRE_SCHEMA:
        raise SchemaError(
            f"an append carries the columns {dict(zip(schema.names, map(str, schema.types), strict=True))}; "
            "convert batches of EPISODE_SCHEMA with buffer.episodes.wire.to_wire"
        )


def to_wire(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the same rows with number columns as binary; shares every value buffer."""
    return _convert(batch, WIRE_SCHEMA, _list_to_binary)


def to_lists(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the same rows with number columns as lists; shares every value buffer."""
    return _convert(batch, EPISODE_SCHEMA, _binary_to_list)


def _convert(
    batch: pa.RecordBatch, target: pa.Schema, convert: Callable[[pa.Array, np.dtype], pa.Array]
) -> pa.RecordBatch:
    columns = [
        column if column.type == field.type else convert(column, RAGGED_DTYPES[field.name])
        for column, field in zip(batch.columns, target, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=target.with_metadata(batch.schema.metadata))


def binary_parts(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return `(offsets, data)` of a binary or string column: byte offsets int32[rows + 1] into `data` uint8."""
    if len(column) == 0:
        return np.zeros(1, dtype=np.int32), np.empty(0, dtype=np.uint8)
    _, offset_buffer, data = column.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=np.int32)[column.offset : column.offset + len(column) + 1]
    return offsets, np.empty(0, np.uint8) if data is None else np.frombuffer(data, dtype=np.uint8)


def binary_array(data: bytes, sizes: np.ndarray) -> pa.BinaryArray:
    """Return a binary array over `data`, whose memory it shares; the values follow one another, with these sizes."""
    offsets = np.zeros(len(sizes) + 1, np.int32)
    np.cumsum(sizes, out=offsets[1:])
    return pa.Array.from_buffers(pa.binary(), len(sizes), [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def _list_to_binary(column: pa.ListArray, dtype: np.dtype) -> pa.BinaryArray:
    values = column.values
    offsets = (column.offsets.to_numpy().astype(np.int64) + values.offset) * dtype.itemsize
    if offsets[-1] > np.iinfo(np.int32).max:
        raise OverflowError(f"{offsets[-1]} bytes of numbers in one batch; append fewer episodes at once")
    data = values.buffers()[1]
    return pa.Array.from_buffers(
        pa.binary(), len(column), [None, pa.py_buffer(offsets.astype(np.int32)), data or pa.py_buffer(b"")]
    )


def _binary_to_list(column: pa.BinaryArray, dtype: np.dtype) -> pa.ListArray:
    offsets, _ = binary_parts(column)
    data = column.buffers()[2] if len(column) else None
    if (offsets % dtype.itemsize).any():
        raise pa.ArrowInvalid(f"a binary column of {dtype} is not divided at whole values")
    size = 0 if data is None else data.size // dtype.itemsize
    values = pa.Array.from_buffers(
        pa.from_numpy_dtype(dtype), size, [None, data if data is not None else pa.py_buffer(b"")]
    )
    return pa.ListArray.from_arrays(pa.array(offsets // dtype.itemsize), values)
