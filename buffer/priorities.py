"""A shard's priorities on disk, beside its segments: written with a checkpoint and at an orderly end."""

import logging
import os
import zipfile
from pathlib import Path

import numpy as np

PRIORITIES_FILE = "priorities.npz"

logger = logging.getLogger(__name__)


def write_priorities(directory: Path, state: dict[str, np.ndarray]) -> None:
    """Keep what `RowIndex.state` gave; the file is whole or as it was before."""
    part = directory / (PRIORITIES_FILE + ".part")
    with part.open("wb") as file:
        np.savez(file, **state)  # type: ignore[arg-type]  # the stubs take **state for its flag allow_pickle
    os.replace(part, directory / PRIORITIES_FILE)


def read_priorities(directory: Path) -> dict[str, np.ndarray] | None:
    """What was kept; None where nothing was, or it cannot be read: priorities are estimates, rows matter more."""
    path = directory / PRIORITIES_FILE
    if not path.exists():
        return None
    try:
        with np.load(path) as file:
            return dict(file)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        logger.error("%s cannot be read (%s); every turn begins with the same priority again", path, error)
        return None
