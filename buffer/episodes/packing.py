"""Packed rows: each episode as one run of bytes, the layout of rows in memory and of samples.

A draw copies one piece of memory per episode; copying fifteen columns one by one costs ten times as much. A packed row
is the header, the number columns in the order of `RAGGED_DTYPES`, the texts in UTF-8, and zeros up to a multiple of
eight bytes.
"""

from datetime import UTC
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from buffer.episodes.schema import RAGGED_DTYPES, Episode
from buffer.episodes.wire import binary_array, binary_parts

TEXTS = ("episode_id", "env", "task_id", "worker", "privileged")
_VARIABLE = (*RAGGED_DTYPES, *TEXTS)
_FLAGS = ("terminated", "truncated", "success")
_UNKNOWN = -1
_HEADER = np.dtype(
    [
        ("created_at", np.int64),
        ("seed", np.int64),
        *((f"{name}_bytes", np.int32) for name in _VARIABLE),
        *((name, np.int8) for name in _FLAGS),
        ("spare", np.int8, 1),
    ]
)
_TURNS_OFFSET = 16 + 4 * list(RAGGED_DTYPES).index("action_start")
"""Offset of `action_start_bytes` in the header, from which the number of turns follows."""
_ALIGNMENT = 8

ROW_SCHEMA: pa.Schema = pa.schema([("row", pa.binary())])  # Schema of packed rows


def pack(batch: pa.RecordBatch) -> tuple[memoryview, np.ndarray]:
    """Return rows of `WIRE_SCHEMA` as bytes, and int64[rows + 1], where each row begins and the last one ends."""
    header = np.zeros(batch.num_rows, _HEADER)
    header["created_at"] = batch.column("created_at").cast(pa.int64()).to_numpy()
    header["seed"] = batch.column("seed").to_numpy()
    for name in _FLAGS:
        header[name] = batch.column(name).cast(pa.int8()).fill_null(_UNKNOWN).to_numpy(zero_copy_only=False)
    used = np.full(batch.num_rows, _HEADER.itemsize, np.int64)
    for name in _VARIABLE:
        sizes = np.diff(binary_parts(batch.column(name))[0])
        header[f"{name}_bytes"] = sizes
        used += sizes
    columns = [
        binary_array(header.tobytes(), np.full(len(used), _HEADER.itemsize)),
        *(batch.column(name).cast(pa.binary()) for name in _VARIABLE),
        binary_array(bytes(_ALIGNMENT * len(used)), -used % _ALIGNMENT),
    ]
    offsets, packed = binary_parts(pc.binary_join_element_wise(*columns, b""))
    return packed.data, offsets.astype(np.int64)


def unpack(batch: pa.RecordBatch) -> list[Episode]:
    """Return the episodes of a batch of `ROW_SCHEMA` and perhaps `messages`; their arrays are views of its memory."""
    offsets, data = binary_parts(batch.column("row"))
    if len(offsets) < 2:
        return []
    # Every array of numbers begins at a multiple of four bytes of its row, and every row at a multiple of eight.
    whole = data[offsets[0] : offsets[-1]]
    starts = (offsets[:-1] - offsets[0]).astype(np.int64)
    header = whole[starts[:, None] + np.arange(_HEADER.itemsize)].view(_HEADER)[:, 0]
    sizes = np.stack([header[f"{name}_bytes"] for name in _VARIABLE], axis=1)
    ends = (starts + _HEADER.itemsize)[:, None] + np.cumsum(sizes, axis=1)
    numbers = len(RAGGED_DTYPES)
    views = [whole.view(dtype) for dtype in RAGGED_DTYPES.values()]
    for view in views:
        view.flags.writeable = False
    words = (np.concatenate(((starts + _HEADER.itemsize)[:, None], ends[:, :numbers]), axis=1) // 4).tolist()
    texts = ends[:, numbers - 1 :].tolist()
    text = whole.data
    plain = {
        "terminated": header["terminated"].astype(bool).tolist(),
        "truncated": header["truncated"].astype(bool).tolist(),
        "success": [None if flag == _UNKNOWN else bool(flag) for flag in header["success"].tolist()],
        "seed": header["seed"].tolist(),
        "created_at": [time.replace(tzinfo=UTC) for time in header["created_at"].astype("datetime64[us]").tolist()],
        "messages": batch.column("messages").to_pylist() if "messages" in batch.schema.names else [[] for _ in starts],
    }
    episodes = []
    for row, (words_of, texts_of) in enumerate(zip(words, texts, strict=True)):
        fields: dict[str, Any] = {name: values[row] for name, values in plain.items()}
        for name, view, start, end in zip(RAGGED_DTYPES, views, words_of, words_of[1:], strict=False):
            fields[name] = view[start:end]
        for name, start, end in zip(TEXTS, texts_of, texts_of[1:], strict=False):
            fields[name] = str(text[start:end], "utf-8")
        # The constructor of a frozen dataclass sets fields one by one, which would take as long as all of the above.
        episode = object.__new__(Episode)
        episode.__dict__.update(fields)
        episodes.append(episode)
    return episodes


def turns_of(batch: pa.RecordBatch) -> np.ndarray:
    """Return int64[rows], the number of turns of each packed row, read from its header."""
    offsets, data = binary_parts(batch.column("row"))
    at = (offsets[:-1, None] + _TURNS_OFFSET + np.arange(4)).astype(np.int64)
    sizes = np.ascontiguousarray(data[at]).view(np.int32)[:, 0] if len(at) else np.empty(0, np.int32)
    return sizes.astype(np.int64) // RAGGED_DTYPES["action_start"].itemsize
