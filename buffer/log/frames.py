"""One frame of a log segment: a record batch, and the seal that proves it complete.

A segment is a plain Arrow IPC stream, so pandas, DuckDB and `pyarrow.ipc.open_stream` read it as it is. Each batch of
rows is followed by a batch of no rows, the seal. The seal's message metadata holds the CRC-32 of every byte of the
batch, the batch's place in the shard's history, and a CRC-32 of its own. Readers that ignore seals see no extra rows.
"""

import zlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from buffer.episodes.schema import EARLIER_SCHEMAS, EPISODE_SCHEMA, VERSION_KEY, completed
from buffer.errors import LogError

LOG_VERSION = b"1"
LOG_VERSION_KEY = b"archer.log"
SEGMENT_SCHEMA: pa.Schema = EPISODE_SCHEMA.with_metadata(
    {**(EPISODE_SCHEMA.metadata or {}), LOG_VERSION_KEY: LOG_VERSION}
)
SEGMENT_HEADER: pa.Buffer = SEGMENT_SCHEMA.serialize()  # The first bytes of every segment
EARLIER_HEADERS: list[pa.Buffer] = [
    schema.with_metadata(SEGMENT_SCHEMA.metadata).serialize() for schema in EARLIER_SCHEMAS
]
"""The first bytes of segments of earlier versions, in the order of `EARLIER_SCHEMAS`."""
_EMPTY = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in SEGMENT_SCHEMA], schema=SEGMENT_SCHEMA)
_SEAL_KEY = b"archer.seal"
_MARK = -1  # Every IPC message begins with the int32 -1, at a multiple of eight bytes
_LONGEST_HEADER = 1 << 16  # Upper bound in bytes of an IPC message header of this schema


_DAMAGE = (pa.ArrowException, OSError, EOFError, ValueError, KeyError)
"""What Arrow raises for damaged bytes: also types that it lacks, and names that are not UTF-8."""


class FrameError(Exception):
    """No complete, undamaged frame begins at this place of a segment."""


@dataclass(frozen=True)
class Frame:
    """A batch of the log and its place in the shard's history."""

    batch: pa.RecordBatch  # List layout; views of the mapped file
    first_row: int  # Rows that the shard had ever stored before this batch
    turns_before: int  # Turns that the shard had ever stored before this batch
    end: int  # Offset of the byte after the frame in its segment


def encode_frame(batch: pa.RecordBatch, first_row: int, turns_before: int) -> tuple[pa.Buffer, pa.Buffer]:
    """Return the bytes of the batch and of its seal."""
    data = batch.serialize()
    text = f"{zlib.crc32(data):08x} {first_row} {turns_before}"
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SEGMENT_SCHEMA) as writer:
        writer.write_batch(_EMPTY, custom_metadata={_SEAL_KEY: f"{text} {zlib.crc32(text.encode()):08x}"})
        end = sink.tell()
    return data, sink.getvalue()[SEGMENT_HEADER.size : end]


def check_header(segment: pa.Buffer, name: str) -> pa.Buffer:
    """Return the header of a segment: SEGMENT_HEADER or one of EARLIER_HEADERS.

    Raises LogError if another version wrote the segment, FrameError if its header is incomplete or damaged.
    """
    try:
        schema = pa.ipc.read_schema(pa.BufferReader(segment))
    except _DAMAGE as error:
        raise FrameError(f"no readable header: {error}") from error
    for what, key in (("log", LOG_VERSION_KEY), ("episode schema", VERSION_KEY)):
        found, wanted = (schema.metadata or {}).get(key), (SEGMENT_SCHEMA.metadata or {})[key]
        if found != wanted:
            raise LogError(
                f"{name} was written with {what} {found!r}, this ArCHer reads {wanted!r}; use the version of ArCHer "
                "that wrote it"
            )
    if schema in EARLIER_SCHEMAS:
        return EARLIER_HEADERS[EARLIER_SCHEMAS.index(schema)]
    if schema != SEGMENT_SCHEMA:
        raise FrameError("the header's columns are not those of the episode schema")
    return SEGMENT_HEADER


def read_frame(segment: pa.Buffer, start: int, header: pa.Buffer = SEGMENT_HEADER) -> Frame:
    """Return the frame that begins at byte `start` of a segment with this header.

    Raises FrameError unless it is complete and its checksum holds.
    """
    source = pa.BufferReader(segment)
    source.seek(start)
    try:
        message = pa.ipc.read_message(source)
        data_end = source.tell()
        pa.ipc.read_message(source)
        end = source.tell()
        seal = pa.ipc.open_stream(pa.py_buffer(header.to_pybytes() + segment[data_end:end].to_pybytes()))
        _, metadata = seal.read_next_batch_with_custom_metadata()
    except (*_DAMAGE, StopIteration) as error:
        raise FrameError(f"torn or damaged at byte {start}: {error}") from error
    text = (metadata or {}).get(_SEAL_KEY, b"")
    checked, _, own = text.rpartition(b" ")
    if not checked or f"{zlib.crc32(checked):08x}".encode() != own:
        raise FrameError(f"no complete seal follows byte {start}")
    crc, first_row, turns_before = checked.split(b" ")
    if zlib.crc32(segment[start:data_end]) != int(crc, 16):
        raise FrameError(f"the checksum of the batch at byte {start} does not match")
    schema = SEGMENT_SCHEMA
    if header in EARLIER_HEADERS:
        schema = EARLIER_SCHEMAS[EARLIER_HEADERS.index(header)]
    batch = pa.ipc.read_record_batch(message, schema).replace_schema_metadata(EPISODE_SCHEMA.metadata)
    return Frame(completed(batch), int(first_row), int(turns_before), end)


def next_frame(segment: pa.Buffer, start: int, header: pa.Buffer = SEGMENT_HEADER) -> Frame | None:
    """Return the first complete frame at or after byte `start`, or None; its mark finds it, its checksum proves it."""
    start += -start % 8
    words = np.frombuffer(segment, dtype=np.int32, count=segment.size // 4)
    lengths = words[start // 4 + 1 :: 2]
    marks = words[start // 4 :: 2][: len(lengths)]
    # Token data may look like a mark; then the checksum fails.
    likely = np.flatnonzero((marks == _MARK) & (lengths > 0) & (lengths <= _LONGEST_HEADER) & (lengths % 8 == 0))
    for candidate in likely:
        try:
            return read_frame(segment, start + 8 * int(candidate), header)
        except FrameError:
            continue
    return None
