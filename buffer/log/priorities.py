"""The priorities of a shard on disk, beside its segments: written with a checkpoint and at an orderly end."""

import io
import logging
import zipfile
from pathlib import Path

import numpy as np

from buffer.atomic_files import write_atomic

PRIORITIES_FILE = "priorities.npz"

logger = logging.getLogger(__name__)


def write_priorities(directory: Path, state: dict[str, np.ndarray]) -> None:
    """Write the result of `RowIndex.state`."""
    content = io.BytesIO()
    np.savez(content, **state)  # type: ignore[arg-type]  # the stubs take **state for its flag allow_pickle
    write_atomic(directory / PRIORITIES_FILE, content.getvalue())


def read_priorities(directory: Path) -> dict[str, np.ndarray] | None:
    """Return the saved state, or None if there is none or it is unreadable: priorities are estimates, rows are data."""
    path = directory / PRIORITIES_FILE
    if not path.exists():
        return None
    try:
        with np.load(path) as file:
            return dict(file)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        logger.error("%s cannot be read (%s); every turn starts with the same priority again", path, error)
        return None
