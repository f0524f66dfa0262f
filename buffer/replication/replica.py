"""The second copy of a shard's log, byte for byte, on the disk of another node.

The shard writes complete frames to its own log first and then the same bytes here, so a replica's segments are prefixes
of the shard's. An epoch numbers a sequence of such bytes. It increases whenever one side continues from the other's
copy, so a folder that an earlier process left on some disk is never used.

    directory/7/segment-*.arrow         the copy of epoch 7
    directory/7/life                    the shard process that began the epoch
    directory/8.part/segment-*.arrow    a copy under construction; it counts when it is complete

Invariant: the folder with the highest number was complete when it got its name: it held all that the shard had
acknowledged.
"""

import os
import re
import shutil
import threading
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path

from buffer.atomic_files import sync_directory, write_atomic
from buffer.errors import LogError, ReplayError
from buffer.log.write_ahead import segment_paths, write_error

_LIFE_FILE = "life"
_SEGMENT = re.compile(r"segment-\d{15}\.arrow")


class EpochError(ReplayError):
    """A shard process wrote to its replica after another process had become that shard."""


class BehindError(ReplayError):
    """A replica lacks the bytes before a write: it lost them, and the shard must rebuild it."""


class Replica:
    """The folder of a replica. Thread-safe; every write may be repeated."""

    def __init__(self, directory: Path, *, fsync: bool) -> None:
        self._directory = directory
        self._fsync = fsync
        self._lock = threading.Lock()
        self.process = uuid.uuid4().hex
        """Identifies this object. A write meant for an earlier one is refused, because that one may have held more."""
        directory.mkdir(parents=True, exist_ok=True)
        complete = [int(path.name) for path in directory.iterdir() if path.name.isdigit()]
        self.epoch = max(complete, default=0)  # 0 if nothing was ever copied here
        for path in directory.iterdir():
            if path.name != str(self.epoch):
                shutil.rmtree(path)

    def sizes(self) -> dict[str, int]:
        """Return the bytes of each segment of the present epoch, oldest first."""
        with self._lock:
            return _sizes(self._folder(self.epoch))

    def read(self, segment: str, offset: int, length: int) -> bytes:
        """Return bytes of a segment of the present epoch; fewer at its end."""
        _check_name(segment)
        with self._lock, (self._folder(self.epoch) / segment).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def write(
        self, process: str, epoch: int, segment: str, offset: int, data: bytes | memoryview, *, new_epoch: bool
    ) -> None:
        """Write bytes to a segment of the present epoch, or with `new_epoch` of a later one to be committed.

        On return the bytes are as durable as the shard's own. Raises EpochError for an earlier epoch, BehindError if
        the bytes before `offset` are missing, DiskFullError or LogError.
        """
        _check_name(segment)
        with self._lock:
            folder = self._writable(process, epoch, new_epoch=new_epoch)
            path = folder / segment
            try:
                folder.mkdir(exist_ok=True)
                new = not path.exists()
                if (held := 0 if new else path.stat().st_size) < offset:
                    raise BehindError(f"{path} ends at byte {held}, and the write begins at byte {offset}")
                with path.open("wb" if new else "r+b", buffering=0) as file:
                    file.seek(offset)
                    view = memoryview(data)
                    while view.nbytes:
                        view = view[file.write(view) :]
                    if self._fsync:
                        os.fsync(file.fileno())
                if new and self._fsync:
                    sync_directory(folder)
            except OSError as error:
                then = "the append is on one node only, and not acknowledged"
                raise write_error(folder, error, then=then) from error

    def keep(self, process: str, epoch: int, segments: Collection[str]) -> None:
        """Delete the segments of the present epoch that the shard has dropped. Raises as `write` does."""
        with self._lock:
            for path in segment_paths(self._writable(process, epoch, new_epoch=False)):
                if path.name not in segments:
                    path.unlink()

    def commit(self, epoch: int, life: str, segments: Mapping[str, int] | None) -> None:
        """Make a later epoch the present one.

        Args:
            life: identifies the shard process that begins the epoch.
            segments: bytes of each segment that was written for it; None to continue from the present copy.

        Raises EpochError if another shard process was first, BehindError if `segments` are incomplete, LogError.
        """
        with self._lock:
            if epoch <= self.epoch:
                if epoch == self.epoch and life == (self._folder(epoch) / _LIFE_FILE).read_text():
                    return  # A repeated request whose first answer was lost.
                raise EpochError(_taken_over(epoch, self.epoch))
            earlier, target = self._folder(self.epoch), self._directory / str(epoch)
            source = earlier if segments is None else self._folder(epoch)
            try:
                source.mkdir(exist_ok=True)
                if segments is not None and _sizes(source) != dict(segments):
                    raise BehindError(f"{source} is not complete")
                write_atomic(source / _LIFE_FILE, life, sync=self._fsync)
                os.replace(source, target)
                if self._fsync:
                    sync_directory(self._directory)
                self.epoch = epoch
                if segments is not None and earlier.exists():
                    shutil.rmtree(earlier)
            except OSError as error:
                raise LogError(f"cannot begin epoch {epoch} of {self._directory}: {error}") from error

    def discard(self, epoch: int) -> None:
        """Delete what was written for a later epoch that was never committed."""
        with self._lock:
            if epoch > self.epoch:
                shutil.rmtree(self._folder(epoch), ignore_errors=True)

    def _folder(self, epoch: int) -> Path:
        return self._directory / (str(epoch) if epoch <= self.epoch else f"{epoch}.part")

    def _writable(self, process: str, epoch: int, *, new_epoch: bool) -> Path:
        """Return the folder of a write, or raise EpochError or BehindError."""
        if process != self.process:
            raise BehindError(f"another process serves {self._directory} now")
        if epoch < self.epoch or (new_epoch and epoch == self.epoch):
            raise EpochError(_taken_over(epoch, self.epoch))
        if epoch > self.epoch and not new_epoch:
            raise BehindError(f"{self._directory} is of epoch {self.epoch}, and the shard is at epoch {epoch}")
        return self._folder(epoch)


def _taken_over(epoch: int, present: int) -> str:
    return f"a shard of epoch {epoch} writes to its replica of epoch {present}: another process is that shard now"


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in segment_paths(folder)}


def _check_name(segment: str) -> None:
    if not _SEGMENT.fullmatch(segment):
        raise ReplayError(f"{segment!r} is no segment of a log")
