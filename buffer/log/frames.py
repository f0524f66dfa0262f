"""One frame of a log segment: a record batch and the seal that proves it whole.

A segment is a plain Arrow IPC stream, so pandas, DuckDB and `pyarrow.ipc.open_stream` read it as it is. After each
batch of rows stands a batch of no rows, the seal, whose message metadata holds the CRC-32 of every byte of the
batch before it, its place in the shard's history, and a CRC-32 of its own. Readers that know nothing of seals see
no extra rows.
"""

import zlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from buffer.episodes.schema import EPISODE_SCHEMA, SCHEMA_VERSION
from buffer.errors import LogError
from buffer.versions import upgraded, version_of

LOG_VERSION = b"1"
LOG_VERSION_KEY = b"archer.log"
SEGMENT_SCHEMA: pa.Schema = EPISODE_SCHEMA.with_metadata(
    {**(EPISODE_SCHEMA.metadata or {}), LOG_VERSION_KEY: LOG_VERSION}
)
SEGMENT_HEADER: pa.Buffer = SEGMENT_SCHEMA.serialize()
"""The bytes every segment begins with."""
_EMPTY = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in SEGMENT_SCHEMA], schema=SEGMENT_SCHEMA)
_SEAL_KEY = b"archer.seal"
_MARK = -1
"""Every IPC message begins with the int32 -1, at a multiple of eight bytes."""


class FrameError(Exception):
    """No whole, undamaged frame begins at this place of a segment."""


@dataclass(frozen=True)
class Frame:
    """A batch of the log and its place in the shard's history."""

    batch: pa.RecordBatch
    """List layout; views of the mapped file."""
    first_row: int
    """Rows the shard had ever stored before this batch."""
    turns_before: int
    """Turns the shard had ever stored before this batch."""
    end: int
    """Offset of the byte after the frame in its segment."""


def encode_frame(batch: pa.RecordBatch, first_row: int, turns_before: int) -> tuple[pa.Buffer, pa.Buffer]:
    """The bytes of the batch and of its seal."""
    data = batch.serialize()
    text = f"{zlib.crc32(data):08x} {first_row} {turns_before}"
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SEGMENT_SCHEMA) as writer:
        writer.write_batch(_EMPTY, custom_metadata={_SEAL_KEY: f"{text} {zlib.crc32(text.encode()):08x}"})
        end = sink.tell()
    return data, sink.getvalue()[SEGMENT_HEADER.size : end]


def read_header(segment: pa.Buffer, name: str) -> pa.Schema:
    """The schema that a segment was written in: the present one or an older one.

    Raises LogError where a later version wrote it, FrameError where it has no whole header.
    """
    try:
        schema = pa.ipc.read_schema(pa.BufferReader(segment))
    except (pa.ArrowInvalid, OSError, EOFError) as error:
        raise FrameError(f"no readable header: {error}") from error
    log = (schema.metadata or {}).get(LOG_VERSION_KEY)
    if log != LOG_VERSION:
        raise LogError(
            f"{name} was written with log {log!r}, this ArCHer reads {LOG_VERSION!r}; use the version of ArCHer that "
            "wrote it"
        )
    if version_of(schema, name) == int(SCHEMA_VERSION) and schema != SEGMENT_SCHEMA:
        raise FrameError("the header's columns are not those of the episode schema")
    return schema


def read_frame(segment: pa.Buffer, start: int, schema: pa.Schema = SEGMENT_SCHEMA) -> Frame:
    """The frame that begins at byte `start`, in the present version; `schema` is the segment's.

    Raises FrameError unless it is whole and its checksum holds.
    """
    source = pa.BufferReader(segment)
    source.seek(start)
    header = SEGMENT_HEADER if schema is SEGMENT_SCHEMA else schema.serialize()
    try:
        message = pa.ipc.read_message(source)
        data_end = source.tell()
        pa.ipc.read_message(source)
        end = source.tell()
        seal = pa.ipc.open_stream(pa.py_buffer(header.to_pybytes() + segment[data_end:end].to_pybytes()))
        _, metadata = seal.read_next_batch_with_custom_metadata()
    except (pa.ArrowInvalid, OSError, EOFError, StopIteration) as error:
        raise FrameError(f"torn or damaged at byte {start}: {error}") from error
    text = (metadata or {}).get(_SEAL_KEY, b"")
    checked, _, own = text.rpartition(b" ")
    if not checked or f"{zlib.crc32(checked):08x}".encode() != own:
        raise FrameError(f"no whole seal follows byte {start}")
    crc, first_row, turns_before = checked.split(b" ")
    if zlib.crc32(segment[start:data_end]) != int(crc, 16):
        raise FrameError(f"the checksum of the batch at byte {start} does not hold")
    batch = upgraded(pa.ipc.read_record_batch(message, schema), "the log")
    return Frame(batch.replace_schema_metadata(EPISODE_SCHEMA.metadata), int(first_row), int(turns_before), end)


def next_frame(segment: pa.Buffer, start: int, schema: pa.Schema = SEGMENT_SCHEMA) -> Frame | None:
    """The first whole frame at or after byte `start`, found by its mark and proved by its checksum."""
    start += -start % 8
    words = np.frombuffer(segment, dtype=np.int32, count=segment.size // 4)
    lengths = words[start // 4 + 1 :: 2]
    marks = words[start // 4 :: 2][: len(lengths)]
    # No header of this schema is longer; token data that looks like a mark is sorted out by the checksum.
    likely = np.flatnonzero((marks == _MARK) & (lengths > 0) & (lengths <= 1 << 16) & (lengths % 8 == 0))
    for candidate in likely:
        try:
            return read_frame(segment, start + 8 * int(candidate), schema)
        except FrameError:
            continue
    return None
