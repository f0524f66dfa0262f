"""The folder of a run: where each file lies, one run at a time in it, and writes that are whole or not there at all.

runs/NAME/  config.yaml  metrics.jsonl  checkpoints/cycle-00012/  replay/  model/  clone/  summary.json
            learning_curve.png
"""

import errno
import fcntl
import json
import math
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from archer.errors import ArcherError, ConfigError
from buffer import atomic_files as files
from learner.engine.checkpoint_folders import checkpoint_folders


class RunFolderError(ArcherError):
    """The run folder can't be read or written."""


class RunFolder:
    """One run's folder, locked while this object is open. Use as a context manager, or call close()."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path.resolve()
        self._lock_fd: int | None = lock_fd

    @classmethod
    def create(cls, root: Path, name: str, *, overwrite: bool = False) -> Self:
        """Make `root/name`. ConfigError where a run is there already, unless `overwrite` deletes it."""
        path = root / name
        with _disk(path):
            path.mkdir(parents=True, exist_ok=True)
            lock_fd = _lock(path)
            try:
                earlier = [entry for entry in path.iterdir() if entry.name != _LOCK]
                if _has_results(path) and not overwrite:
                    raise ConfigError(
                        f"{path} already holds a run; go on with it by `archer train --resume {path}`, replace it by "
                        "--overwrite, or choose another name with name=..."
                    )
                if earlier and not (path / "config.yaml").is_file():
                    raise ConfigError(
                        f"{path} is no run folder (it has no config.yaml), so what is in it won't be deleted; choose "
                        "another name with name=..."
                    )
                for entry in earlier:
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
                for folder in ("checkpoints", "replay"):
                    (path / folder).mkdir()
            except BaseException:
                os.close(lock_fd)
                raise
        return cls(path, lock_fd)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a run that exists, to go on with it. ConfigError where there is none."""
        if not (path / "config.yaml").is_file():
            raise ConfigError(f"{path} is no run folder (it has no config.yaml); give a folder such as runs/demo")
        with _disk(path):
            return cls(path, _lock(path))

    def close(self) -> None:
        """Give the lock back."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def config_path(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def summary_path(self) -> Path:
        return self.path / "summary.json"

    @property
    def curve_path(self) -> Path:
        return self.path / "learning_curve.png"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def replay(self) -> Path:
        return self.path / "replay"

    @property
    def model(self) -> Path:
        """Where a model that the run makes for itself is kept."""
        return self.path / "model"

    @property
    def demonstrations(self) -> Path:
        """The episodes that the policy is cloned from, one Arrow file in the replay schema."""
        return self.path / "demonstrations.arrow"

    def write_config(self, text: str) -> None:
        write_atomic(self.config_path, text)

    def write_summary(self, summary: dict[str, Any]) -> None:
        write_atomic(self.summary_path, json.dumps(_plain(summary), indent=2) + "\n")

    def append_row(self, row: dict[str, Any]) -> None:
        """Add one row to metrics.jsonl. One write call per row, so a kill tears the last line at most."""
        line = json.dumps(_plain(row)) + "\n"
        with _disk(self.metrics_path), open(self.metrics_path, "ab") as file:
            if file.tell():
                _mend_tail(self.metrics_path)
            file.write(line.encode())

    def rows(self) -> list[dict[str, Any]]:
        return read_rows(self.metrics_path)

    def rewind(self, cycle: int) -> None:
        """Drop rows of cycles after `cycle`: a run resumed from there plays them again."""
        kept = [row for row in self.rows() if row.get("cycle", 0) <= cycle]
        write_atomic(self.metrics_path, "".join(json.dumps(row) + "\n" for row in kept))

    def latest_checkpoint(self) -> Path | None:
        """The newest complete checkpoint; None before the first."""
        return latest_checkpoint(self.path)


_LOCK = ".lock"


def _has_results(path: Path) -> bool:
    """Whether a run got far enough for its loss to hurt; one that failed while starting may be replaced."""
    return (path / "metrics.jsonl").exists() or latest_checkpoint(path) is not None


def latest_checkpoint(run: Path) -> Path | None:
    """The newest complete checkpoint of a run's folder, open or not; None where there is none."""
    folders = checkpoint_folders(run / "checkpoints")
    return folders[-1] if folders else None


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics.jsonl. A last line that a kill tore is left out; anything else that is no JSON is an error."""
    if not path.exists():
        return []
    *whole, tail = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows = []
    for number, line in enumerate(whole, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            raise RunFolderError(f"{path}, line {number} is no JSON: {line[:60]!r}; delete that line") from None
    if _is_json(tail.encode()):
        rows.append(json.loads(tail))
    return rows


def _mend_tail(path: Path) -> None:
    """End the last line of a file, or cut it off where a kill tore it, so that the next row isn't glued to it."""
    with open(path, "rb+") as file:
        content = file.read()
        tail = content[content.rfind(b"\n") + 1 :]
        if tail and _is_json(tail):
            file.write(b"\n")
        elif tail:
            file.truncate(len(content) - len(tail))


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def write_atomic(path: Path, data: str | bytes) -> None:
    """As `buffer.atomic_files.write_atomic`, for good; what the disk refuses is a sentence."""
    with _disk(path):
        files.write_atomic(path, data, sync=True)


def _lock(path: Path) -> int:
    """Hold `path/.lock` until the file descriptor is closed; the kernel gives it back when the process dies."""
    fd = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 200, 0).decode(errors="replace").strip() or "another process"
        os.close(fd)
        raise RunFolderError(
            f"{path} is in use by {holder}; wait for it, end it, or choose another name with name=..."
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return fd


def _plain(value: Any) -> Any:
    """NumPy scalars to Python's, and NaN and infinity to null, which JSON can't say."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Say in a sentence what the disk refused."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunFolderError(
                f"no space left on the disk of {path}; free some, then go on with `archer train --resume`"
            ) from error
        raise RunFolderError(f"{error.filename or path}: {error.strerror}") from error
