"""A second copy of a shard's log, byte for byte, on the disk of another node.

The shard writes whole frames to its own log first and then the same bytes here, so a replica's segments are beginnings
of the shard's. The epoch names a line of such bytes: it rises whenever one side goes on from the other's, so that what
an earlier life left on some disk is never taken for the present.

    directory/7/segment-*.arrow         the copy of epoch 7
    directory/7/life                    which of the shard's lives began the epoch
    directory/8.part/segment-*.arrow    one that is being made anew, and counts once it is whole

Invariant: the highest numbered folder was whole, all that the shard had acknowledged, when it got its name.
"""

import os
import re
import shutil
import threading
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path

from buffer.atomic_files import sync_directory, write_atomic
from buffer.errors import BehindError, EpochError, LogError, ReplayError
from buffer.log.write_ahead import refusal, segment_paths

_LIFE = "life"
_SEGMENT = re.compile(r"segment-\d{15}\.arrow")


class Replica:
    """The folder of a replica. Thread-safe; every write may be repeated."""

    def __init__(self, directory: Path, *, fsync: bool) -> None:
        self._directory = directory
        self._fsync = fsync
        self._lock = threading.Lock()
        self.process = uuid.uuid4().hex
        """Names this object: a write that was meant for an earlier one is refused, since that may have had more."""
        directory.mkdir(parents=True, exist_ok=True)
        whole = [int(path.name) for path in directory.iterdir() if path.name.isdigit()]
        self.epoch = max(whole, default=0)
        """0 where nothing was ever copied here."""
        for path in directory.iterdir():
            if path.name != str(self.epoch):
                shutil.rmtree(path)

    def sizes(self) -> dict[str, int]:
        """Bytes of each segment of the present epoch, oldest first."""
        with self._lock:
            return _sizes(self._folder(self.epoch))

    def read(self, segment: str, offset: int, length: int) -> bytes:
        """Bytes of a segment of the present epoch, fewer at its end."""
        _check_name(segment)
        with self._lock, (self._folder(self.epoch) / segment).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def write(
        self, process: str, epoch: int, segment: str, offset: int, data: bytes | memoryview, *, anew: bool
    ) -> None:
        """Put bytes into a segment of the present epoch, or with `anew` of a later one that is to be committed.

        As safe on return as the shard's own. Raises EpochError for an earlier epoch, BehindError where what comes
        before is missing, DiskFullError or LogError.
        """
        _check_name(segment)
        with self._lock:
            folder = self._written(process, epoch, anew=anew)
            path = folder / segment
            try:
                folder.mkdir(exist_ok=True)
                new = not path.exists()
                if (held := 0 if new else path.stat().st_size) < offset:
                    raise BehindError(f"{path} ends at byte {held}, and bytes from {offset} on were to follow")
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
                raise refusal(
                    folder, error, then="what was appended is on one node alone, and not acknowledged"
                ) from error

    def keep(self, process: str, epoch: int, segments: Collection[str]) -> None:
        """Delete all other segments of the present epoch: the shard has given them up. Raises as `write` does."""
        with self._lock:
            for path in segment_paths(self._written(process, epoch, anew=False)):
                if path.name not in segments:
                    path.unlink()

    def commit(self, epoch: int, life: str, segments: Mapping[str, int] | None) -> None:
        """Make a later epoch the present one.

        Args:
            segments: bytes of each that was written anew for it; with None it goes on from what is here already.

        Raises EpochError where another life of the shard was first, BehindError where not all of `segments` is
        here, LogError.
        """
        with self._lock:
            if epoch <= self.epoch:
                if epoch == self.epoch and life == self._life():
                    return  # It was asked for before, and the answer was lost.
                raise EpochError(_taken_over(epoch, self.epoch))
            earlier, target = self._folder(self.epoch), self._directory / str(epoch)
            source = earlier if segments is None else self._folder(epoch)
            try:
                source.mkdir(exist_ok=True)
                if segments is not None and _sizes(source) != dict(segments):
                    raise BehindError(f"{source} is not whole")
                write_atomic(source / _LIFE, life, sync=self._fsync)
                os.replace(source, target)
                if self._fsync:
                    sync_directory(self._directory)
                self.epoch = epoch
                if segments is not None and earlier.exists():
                    shutil.rmtree(earlier)
            except OSError as error:
                raise LogError(f"cannot make epoch {epoch} of {self._directory}: {error}") from error

    def discard(self, epoch: int) -> None:
        """Delete what was written of a later epoch that never came to be."""
        with self._lock:
            if epoch > self.epoch:
                shutil.rmtree(self._folder(epoch), ignore_errors=True)

    def remove(self) -> None:
        """Delete all of it."""
        with self._lock:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _folder(self, epoch: int) -> Path:
        return self._directory / (str(epoch) if epoch <= self.epoch else f"{epoch}.part")

    def _written(self, process: str, epoch: int, *, anew: bool) -> Path:
        """The folder that a write goes to."""
        if process != self.process:
            raise BehindError(f"{self._directory} is served by another process since")
        if epoch < self.epoch or (anew and epoch == self.epoch):
            raise EpochError(_taken_over(epoch, self.epoch))
        if epoch > self.epoch and not anew:
            raise BehindError(f"{self._directory} is of epoch {self.epoch}, and a shard of epoch {epoch} goes on")
        return self._folder(epoch)

    def _life(self) -> str | None:
        path = self._folder(self.epoch) / _LIFE
        return path.read_text() if path.exists() else None


def _taken_over(epoch: int, present: int) -> str:
    return f"a shard of epoch {epoch} writes to its replica of epoch {present}: another process is that shard now"


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in segment_paths(folder)}


def _check_name(segment: str) -> None:
    if not _SEGMENT.fullmatch(segment):
        raise ReplayError(f"{segment!r} is no segment of a log")
