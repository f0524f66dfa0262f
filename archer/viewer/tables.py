"""Reading the Parquet files of `history/`, and of the demonstrations, without failing at what is not whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from archer.viewer.runs import Run
from learner.history.folder import EPISODES, NEWEST, VALUES, history_files

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


def read_episode(path: Path, row: int) -> dict[str, Any] | None:
    """Return one row of a file of `episode_files` as Python values, or None if the file has no such row (any more).

    Of a Parquet file only the row group of the row is read.
    """
    if path.name == DEMONSTRATIONS:
        table, left = read_demonstrations(path), row
    else:
        table, left = _row_group(path, row)
    if table is None or left >= table.num_rows:
        return None
    return table.slice(left, 1).to_pylist()[0]


def _row_group(path: Path, row: int) -> tuple[pa.Table | None, int]:
    """Return the row group that holds row `row`, and the number of the row in it."""
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if row < rows:
                    return file.read_row_group(group, use_threads=False), row
                row -= rows
    except (OSError, pa.ArrowException):
        pass
    return None, 0


def episode_files(run: Run) -> list[Path]:
    """Return the files of a run that hold episodes."""
    demonstrations = run.path / DEMONSTRATIONS
    return [*([demonstrations] if demonstrations.is_file() else []), *history_files(run.path, EPISODES)]


def value_files(run: Run) -> list[Path]:
    """Return the files of a run that hold values of turns as steps used them."""
    return history_files(run.path, VALUES)


def newest_files(run: Run) -> list[Path]:
    """Return the files of a run that hold values of turns as its newest critic sees them."""
    return history_files(run.path, NEWEST)
