"""The folder of a run: its paths, its lock, and writes that are complete or absent after a crash.

runs/NAME/  config.yaml  metrics.jsonl  checkpoints/cycle-00012/  best/cycle-00010/  replay/  model/  summary.json
            demonstrations.arrow  learning_curve.png  targets.json
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from archer import signals
from archer.errors import ConfigError, RunError
from buffer.atomic_files import write_atomic
from learner.engine.checkpoint_folders import STOP_FILE, checkpoint_folders

_LOCK = ".lock"
_PRIVATE = 0o700
"""Mode of the folder: it holds tokens, episodes and the configuration, from which the run executes code."""


class RunFolder:
    """The folder of one run, locked until the end of its `with` block."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path.resolve()
        self.config_path = self.path / "config.yaml"
        self.metrics_path = self.path / "metrics.jsonl"
        self.targets_path = self.path / "targets.json"
        self.summary_path = self.path / "summary.json"
        self.curve_path = self.path / "learning_curve.png"
        self.checkpoints = self.path / "checkpoints"
        self.replay = self.path / "replay"
        self.model = self.path / "model"  # the model that the run builds for itself
        self.demonstrations = self.path / "demonstrations.arrow"  # what the learner clones, in the replay schema
        self._lock_fd = lock_fd

    @classmethod
    def create(cls, root: Path, name: str, *, overwrite: bool = False) -> Self:
        """Make and lock `root/name`. Raises ConfigError if it already has results, unless `overwrite` deletes them."""
        path = root / name
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True, mode=_PRIVATE)
            lock_fd = _lock(path)
            try:
                _empty(path, overwrite=overwrite)
                path.chmod(_PRIVATE)  # an earlier run's folder, or a umask
                for folder in ("checkpoints", "replay"):
                    (path / folder).mkdir()
            except BaseException:
                os.close(lock_fd)
                raise
        return cls(path, lock_fd)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open and lock the folder of an existing run.

        Raises ConfigError if `path` is not a run folder, or if every user of the machine can change what the run reads.
        """
        if not (path / "config.yaml").is_file():
            raise ConfigError(f"{path} is no run folder (it has no config.yaml); give a folder such as runs/demo")
        if path.stat().st_mode & stat.S_IWOTH:
            raise ConfigError(
                f"every user of this machine can write to {path}, and its configuration names code that the run "
                f"executes; check its content, then chmod 700 {path}"
            )
        with disk_errors(path):
            return cls(path, _lock(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock_fd)

    @contextmanager
    def stoppable(self, in_cycles: Callable[[], bool]) -> Iterator[None]:
        """Let SIGTERM in the block ask the ranks to end after their cycle, with a checkpoint, if they are in one."""
        stop = self.path / STOP_FILE

        def ask() -> bool:
            with suppress(OSError):  # a full disk has no room for a checkpoint either
                stop.touch()
                return in_cycles()
            return False

        stop.unlink(missing_ok=True)
        try:
            with signals.ends_by(ask):
                yield
        finally:
            stop.unlink(missing_ok=True)

    def write(self, path: Path, text: str) -> None:
        """Replace the file `path` by `text`; a crash leaves the old content or the new."""
        with disk_errors(path):
            write_atomic(path, text, sync=True)

    def write_summary(self, summary: dict[str, Any]) -> None:
        self.write(self.summary_path, json.dumps(plain(summary), indent=2) + "\n")

    def append_row(self, row: dict[str, Any]) -> None:
        """Add a row to metrics.jsonl in one write: a kill can only cut off the last line, which `rewind` mends."""
        with disk_errors(self.metrics_path), open(self.metrics_path, "ab") as file:
            file.write(json.dumps(plain(row)).encode() + b"\n")

    def rows(self) -> list[dict[str, Any]]:
        return read_rows(self.metrics_path)

    def rewind(self, cycle: int) -> None:
        """Drop the rows of cycles after `cycle`, which the resumed run repeats, and a last line that is incomplete."""
        kept = [row for row in self.rows() if row.get("cycle", 0) <= cycle]
        self.write(self.metrics_path, "".join(json.dumps(row) + "\n" for row in kept))


def latest_checkpoint(run: Path) -> Path | None:
    """Return the newest complete checkpoint of a run's folder, or None. It needs no lock."""
    folders = checkpoint_folders(run / "checkpoints")
    return folders[-1] if folders else None


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics.jsonl, without a last line that a kill cut off. Other bad lines raise RunError."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines):
                raise RunError(f"{path}, line {number} is not JSON: {line[:60]!r}; delete that line") from None
    return rows


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a RunError that names the file."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(
                f"no space left on the disk of {path}; free some, then continue with `archer train --resume`"
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise RunError(
                f"{error.filename or path} cannot be written ({error.strerror}); allow it, or choose another folder "
                "for runs with runs_dir=..."
            ) from error
        raise RunError(f"{error.filename or path}: {error.strerror}") from error


def _empty(path: Path, *, overwrite: bool) -> None:
    """Delete the content of a folder, except its lock. Raises ConfigError if it may be of value.

    A run that failed before its first row or checkpoint has nothing of value.
    """
    earlier = [entry for entry in path.iterdir() if entry.name != _LOCK]
    rows = read_rows(path / "metrics.jsonl")
    has_results = any(row["kind"] != "passes" for row in rows) or latest_checkpoint(path) is not None
    if has_results and not overwrite:
        raise ConfigError(
            f"{path} already holds a run; continue it with `archer train --resume {path}`, replace it with "
            "--overwrite, or choose another name with name=..."
        )
    if earlier and not (path / "config.yaml").is_file():
        raise ConfigError(
            f"{path} is no run folder (it has no config.yaml), so its content is not deleted; choose another name with "
            "name=..."
        )
    for entry in earlier:
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def _lock(path: Path) -> int:
    """Lock `path/.lock` until the file descriptor is closed; the kernel releases the lock if the process dies."""
    fd = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 200, 0).decode(errors="replace").strip() or "another process"
        os.close(fd)
        raise RunError(
            f"{path} is in use by {holder}; wait for it, end it, or choose another name with name=..."
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return fd


def plain(value: Any) -> Any:
    """Convert NumPy scalars to Python's, and NaN and infinity to null, because JSON has neither."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
