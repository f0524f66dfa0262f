"""The folders of a run's checkpoints: their names, which of them are complete, and how many are kept.

This module imports no torch, so that the command line can list checkpoints without loading it.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

CRITIC_FILE = "critic.pt"
"""The critic's weights in a checkpoint of an algorithm that plays by its critic."""

_NAME = re.compile(r"cycle-(\d{5,})")


def checkpoint_folders(directory: Path) -> list[Path]:
    """Return the complete checkpoints in `directory`, oldest first; an empty list if there is no such folder."""
    if not directory.is_dir():
        return []
    found = {path: match for path in directory.iterdir() if (match := _NAME.fullmatch(path.name))}
    return sorted(found, key=lambda path: int(found[path][1]))


def begin(directory: Path, cycle: int) -> Path:
    """Make an empty folder for a checkpoint that is being written. Its name does not count as a checkpoint's."""
    partial = directory / f"cycle-{cycle:05d}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def commit(partial: Path, keep: int) -> Path:
    """Rename a finished checkpoint to its final name, delete all but the newest `keep`, and return its path."""
    final = partial.with_suffix("")
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    for old in checkpoint_folders(final.parent)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final
