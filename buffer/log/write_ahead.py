"""The write-ahead log of a shard: segments of frames, appended at the end and dropped from the front.

Invariants: the bytes of a segment before its end are complete frames; a failed append leaves the file unchanged; a
sealed segment never changes again, so a checkpoint may hard-link it; each start begins a new segment.
"""

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from buffer.atomic_files import sync_directory
from buffer.config import Durability
from buffer.errors import DiskFullError, LogError
from buffer.log.frames import SEGMENT_HEADER, Frame, FrameError, check_header, encode_frame, next_frame, read_frame

logger = logging.getLogger(__name__)

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass
class Segment:
    """A file of the log."""

    path: Path
    first_row: int
    size: int  # Bytes


@dataclass
class Recovery:
    """What reading a log found besides complete frames."""

    torn_bytes: int = 0  # Bytes cut from the tail: an append that was never acknowledged
    damaged: list[str] = field(default_factory=list)  # One sentence for each damaged part that was skipped


def segment_paths(directory: Path) -> list[Path]:
    """Return the segments in a shard's folder, oldest first."""
    return sorted(directory.glob("segment-*.arrow"))


def read_log(directory: Path, recovery: Recovery, *, repair: bool) -> Iterator[tuple[Segment, Frame]]:
    """Yield every complete frame in order. With `repair` a torn tail is cut off the last segment.

    Raises LogError for a log of another version.
    """
    paths = segment_paths(directory)
    for path in paths:
        yield from _read_segment(path, recovery, last=path == paths[-1], repair=repair)


def read_episodes(directory: Path, *, after: Path | None = None) -> Iterator[pa.RecordBatch]:
    """Yield every batch of `EPISODE_SCHEMA` in the logs of a replay or checkpoint, shard after shard.

    With `after`, a checkpoint of this replay, only what was appended after it.

    Works while the replay runs: it changes nothing and omits an append that is under way. Includes evicted rows
    until their segment is dropped. Raises LogError for a log of another version.
    """
    for shard in sorted(directory.glob("shard-*"), key=lambda path: int(path.name.partition("-")[2])):
        # A checkpoint seals each segment that it holds, so that later rows are in others.
        earlier = set() if after is None else {path.name for path in segment_paths(after / shard.name)}
        for path in segment_paths(shard):
            if path.name in earlier:
                continue
            try:
                for _, frame in _read_segment(path, Recovery(), last=True, repair=False):
                    yield frame.batch
            except FileNotFoundError:
                continue  # All its rows were evicted meanwhile.


def _read_segment(path: Path, recovery: Recovery, *, last: bool, repair: bool) -> Iterator[tuple[Segment, Frame]]:
    size = path.stat().st_size
    segment = Segment(path, int(path.stem.partition("-")[2]), size)
    buffer = pa.memory_map(str(path)).read_buffer() if size else pa.py_buffer(b"")
    position, header = 0, SEGMENT_HEADER
    try:
        header = check_header(buffer, str(path))
        position = header.size
    except FrameError as error:
        logger.warning("log segment %s: %s", path, error)
    while position < size:
        try:
            frame = read_frame(buffer, position, header)
        except FrameError as error:
            found = next_frame(buffer, position + 8, header)
            if found is None and last:
                break
            where = "the end of the segment" if found is None else f"the next complete batch (row {found.first_row})"
            what = f"{path}: {error}; skipped to {where}"
            recovery.damaged.append(what)
            logger.error("damaged log, rows lost: %s", what)
            if found is None:
                return
            frame = found
        yield segment, frame
        position = frame.end
    if position < size:
        recovery.torn_bytes += size - position
        if repair:
            logger.warning("%s: cut a torn tail of %d bytes after the last complete batch", path, size - position)
            os.truncate(path, position)
            segment.size = position


class WriteAheadLog:
    """The appending side of a log. One writer; the caller holds a lock around every call."""

    def __init__(self, directory: Path, *, durability: Durability, segment_bytes: int) -> None:
        self.directory = directory
        self.segment_bytes = segment_bytes
        self._fsync = durability == "fsync"
        self._sealed: list[Segment] = []
        self._active: Segment | None = None
        self._file = -1

    def adopt(self, segments: list[Segment]) -> None:
        """Take over the sealed segments that `read_log` yielded, and delete the empty ones."""
        kept = {segment.path for segment in segments}
        for path in segment_paths(self.directory):
            if path not in kept:
                path.unlink()
        self._sealed = list(segments)

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return sum(segment.size for segment in self.segments())

    def segments(self) -> list[Segment]:
        """Return all segments, oldest first; the last one may be active."""
        return [*self._sealed, *([self._active] if self._active else [])]

    def append(self, batch: pa.RecordBatch, first_row: int, turns_before: int) -> None:
        """Write one frame, as durably as configured.

        Raises DiskFullError if there is no room, LogError if the disk fails; the log is then unchanged.
        """
        parts = encode_frame(batch, first_row, turns_before)
        try:
            active = self._active or self._begin(first_row)
            written = self._write(active, parts)
        except OSError as error:
            raise write_error(self.directory, error) from error
        active.size += written
        if active.size >= self.segment_bytes:
            self.close()

    def _begin(self, first_row: int) -> Segment:
        path = self.directory / f"segment-{first_row:015d}.arrow"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self._active = Segment(path, first_row, 0)
        if self._fsync:
            sync_directory(self.directory)
        return self._active

    def _write(self, active: Segment, parts: tuple[pa.Buffer, ...]) -> int:
        """Write the parts, after the header in a new segment, or restore the file; returns the bytes written."""
        buffers = [memoryview(part).cast("B") for part in parts]
        if active.size == 0:
            buffers.insert(0, memoryview(SEGMENT_HEADER).cast("B"))
        total = 0
        try:
            for buffer in buffers:
                while buffer.nbytes:
                    count = os.write(self._file, buffer)
                    total += count
                    buffer = buffer[count:]
            if self._fsync:
                os.fsync(self._file)
        except OSError:
            self._cut_back(active)
            raise
        return total

    def _cut_back(self, active: Segment) -> None:
        try:
            os.ftruncate(self._file, active.size)
            os.lseek(self._file, active.size, os.SEEK_SET)
        except OSError as error:
            # Nothing may follow torn bytes in a file, so the log continues in another; recovery skips the tail.
            logger.error("cannot cut %s back (%s); the log continues in a new segment", active.path, error)
            self.close()

    def close(self) -> None:
        """Seal the active segment; the next append begins another."""
        if self._active is None:
            return
        os.close(self._file)
        if self._active.size:
            self._sealed.append(self._active)
        else:
            self._active.path.unlink()
        self._active = None

    def drop_before(self, row: int) -> int | None:
        """Delete sealed segments whose rows are all before `row`; returns the first row still logged, if any went."""
        segments = self.segments()
        gone = 0
        while gone < len(self._sealed) and gone + 1 < len(segments) and segments[gone + 1].first_row <= row:
            segments[gone].path.unlink()
            gone += 1
        if not gone:
            return None
        self._sealed = self._sealed[gone:]
        return segments[gone].first_row

    def link_to(self, directory: Path) -> None:
        """Hard-link (or copy) every row written so far under `directory`, as sealed segments."""
        self.close()
        for segment in self._sealed:
            link_or_copy(segment.path, directory / segment.path.name)


def link_or_copy(source: Path, target: Path) -> None:
    """Make a hard link, or a copy if the file systems differ or links are not allowed."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise write_error(target.parent, error) from error
        shutil.copy2(source, target)


def write_error(directory: Path, error: OSError, *, then: str = "nothing was stored") -> LogError | DiskFullError:
    """Return the error for a write that failed under `directory`; `then` says what happened to the rows."""
    if error.errno in _NO_ROOM:
        return DiskFullError(f"no room under {directory} ({error.strerror}); {then}. Free space there and append again")
    return LogError(f"cannot write under {directory}: {error}; {then}")
