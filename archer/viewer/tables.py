"""Reading the Parquet files of `history/`, and of the demonstrations, without failing at what is not whole."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from archer.viewer.runs import Run
from learner.history.folder import EPISODES, VALUES, history_files

DEMONSTRATIONS = "demonstrations.arrow"


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table | None:
    """Return the table of a file, or None if the file is gone or damaged."""
    try:
        return pq.read_table(path, columns=columns, memory_map=True)
    except (OSError, pa.ArrowException, KeyError):
        return None


def read_demonstrations(path: Path) -> pa.Table | None:
    """Return the episodes that a run cloned, or None if there are none or the file is damaged."""
    try:
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowException):
        return None


def episode_files(run: Run) -> list[Path]:
    """Return the files of a run that hold episodes."""
    demonstrations = run.path / DEMONSTRATIONS
    return [*([demonstrations] if demonstrations.is_file() else []), *history_files(run.path, EPISODES)]


def read_episodes(path: Path) -> pa.Table | None:
    """Return the episodes of a file of `episode_files`, or None if it cannot be read."""
    return read_demonstrations(path) if path.name == DEMONSTRATIONS else read_parquet(path)


def value_files(run: Run) -> list[Path]:
    """Return the files of a run that hold values of turns."""
    return history_files(run.path, VALUES)
