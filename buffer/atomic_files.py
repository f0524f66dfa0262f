"""Small files that a reader, or a kill, finds as they were or as they are now, never in part."""

import os
from pathlib import Path


def write_atomic(path: Path, data: str | bytes, *, mode: int = 0o666, sync: bool = False) -> None:
    """Write `data` beside `path`, then put it in its place.

    Args:
        mode: permissions, less the process's umask; the data is never there under others.
        sync: return only once the disk has it, so that it outlives the machine too.
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
    """Return once the disk knows what the folder holds."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
