"""Packed rows: each episode as one run of bytes, the layout in memory and of samples.

To draw an episode then copies one piece of memory, whatever number of columns it has and wherever it lies; fifteen
columns gathered one by one cost ten times as much. A packed row is the header, the number columns in the order of
`RAGGED_DTYPES`, the texts in UTF-8, and zeros up to a multiple of eight bytes.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from buffer.schema import RAGGED_DTYPES, Episode
from buffer.wire import binary_parts

TEXTS = ("episode_id", "env", "task_id", "worker")
_VARIABLE = (*RAGGED_DTYPES, *TEXTS)
_FLAGS = ("terminated", "truncated", "success")
_UNKNOWN = -1
_HEADER = np.dtype(
    [
        ("created_at", np.int64),
        ("seed", np.int64),
        *((f"{name}_bytes", np.int32) for name in _VARIABLE),
        *((name, np.int8) for name in _FLAGS),
        ("spare", np.int8, 5),
    ]
)
_TURNS_OFFSET = 16 + 4 * list(RAGGED_DTYPES).index("action_start")
"""Of `action_start_bytes`: it tells the turns."""
_ALIGNMENT = 8
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

ROW_SCHEMA: pa.Schema = pa.schema([("row", pa.binary())])
"""What a sample carries."""


def pack(batch: pa.RecordBatch) -> tuple[bytes, np.ndarray]:
    """Rows of `WIRE_SCHEMA` as bytes, and int64[rows + 1] where each begins and the last ends."""
    rows = batch.num_rows
    header = np.zeros(rows, _HEADER)
    header["created_at"] = batch.column("created_at").cast(pa.int64()).to_numpy()
    header["seed"] = batch.column("seed").to_numpy()
    for name in _FLAGS:
        header[name] = batch.column(name).cast(pa.int8()).fill_null(_UNKNOWN).to_numpy(zero_copy_only=False)
    pieces: list[tuple[list[int], memoryview]] = []
    for name in _VARIABLE:
        offsets, data = binary_parts(batch.column(name))
        header[f"{name}_bytes"] = np.diff(offsets)
        pieces.append((offsets.tolist(), data.data))
    used = _HEADER.itemsize + sum(header[f"{name}_bytes"].astype(np.int64) for name in _VARIABLE)
    sizes = used + -used % _ALIGNMENT
    fill = [bytes(count) for count in np.subtract(sizes, used).tolist()]
    headers = memoryview(header.tobytes())
    parts: list[memoryview | bytes] = []
    for row in range(rows):
        parts.append(headers[row * _HEADER.itemsize : (row + 1) * _HEADER.itemsize])
        parts.extend([data[offsets[row] : offsets[row + 1]] for offsets, data in pieces])
        parts.append(fill[row])
    return b"".join(parts), np.concatenate(([0], np.cumsum(sizes)))


def unpack(batch: pa.RecordBatch) -> list[Episode]:
    """The episodes of a batch of `ROW_SCHEMA`, or of it and `messages`; their arrays are views of its memory."""
    return list(_unpacked(batch))


def turns_of(batch: pa.RecordBatch) -> np.ndarray:
    """int64[rows], the turns of each packed row, read from its header."""
    offsets, data = binary_parts(batch.column("row"))
    at = (offsets[:-1, None] + _TURNS_OFFSET + np.arange(4)).astype(np.int64)
    sizes = np.ascontiguousarray(data[at]).view(np.int32)[:, 0] if len(at) else np.empty(0, np.int32)
    return sizes.astype(np.int64) // RAGGED_DTYPES["action_start"].itemsize


def _unpacked(batch: pa.RecordBatch) -> Iterator[Episode]:
    offsets, data = binary_parts(batch.column("row"))
    messages = batch.column("messages").to_pylist() if "messages" in batch.schema.names else None
    if len(offsets) < 2:
        return
    # Every piece of numbers lies at a multiple of four bytes of the row, which lies at a multiple of eight.
    base, end = int(offsets[0]), int(offsets[-1])
    whole = data[base:end]
    views = {dtype: whole.view(dtype) for dtype in set(RAGGED_DTYPES.values())}
    for view in views.values():
        view.flags.writeable = False
    text = whole.data
    for row, start in enumerate((offsets[:-1] - base).tolist()):
        header = whole[start : start + _HEADER.itemsize].view(_HEADER)[0]
        created_at, seed, *sizes = header.item()[: 2 + len(_VARIABLE)]
        at = start + _HEADER.itemsize
        fields: dict[str, Any] = {}
        for (name, dtype), size in zip(RAGGED_DTYPES.items(), sizes, strict=False):
            fields[name] = views[dtype][at // 4 : (at + size) // 4]
            at += size
        for name, size in zip(TEXTS, sizes[len(RAGGED_DTYPES) :], strict=True):
            fields[name] = str(text[at : at + size], "utf-8")
            at += size
        success = int(header["success"])
        yield Episode(
            **fields,
            terminated=bool(header["terminated"]),
            truncated=bool(header["truncated"]),
            success=None if success == _UNKNOWN else bool(success),
            seed=seed,
            messages=messages[row] if messages is not None else [],
            created_at=_EPOCH + timedelta(microseconds=created_at),
        )
