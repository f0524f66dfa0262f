"""Atomic writes of small files: a reader, or a crash, finds the old content or the new one, never a part."""

import os
from pathlib import Path


def write_atomic(path: Path, data: str | bytes, *, mode: int = 0o666, sync: bool = False) -> None:
    """Write `data` to a temporary file beside `path`, then rename it to `path`.

    Args:
        mode: permissions, less the process's umask; the data never exists with other permissions.
        sync: return only when the data is on disk, so that it survives a crash of the machine.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    content = data.encode() if isinstance(data, str) else data
    try:
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if sync:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Return when the entries of the folder are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
