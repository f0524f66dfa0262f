"""The folder `history/` of a run: whole files under final names, a limit of bytes, and what a resume drops.

A file is written under a name that no reader looks for, and renamed when it is complete: after a kill, a reader finds
the whole file or none. The name of a file begins with its cycle, so that a cycle that a resumed run repeats replaces
its own file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HISTORY = "history"
EPISODES, VALUES, NEWEST = "episodes", "values", "newest"
"""The tables, each a folder of Parquet files. The last has the columns of the second."""

_GROUP = {EPISODES: 32, VALUES: 8192, NEWEST: 8192}
"""Rows that a reader of one row reads: few episodes, which hold tokens and texts."""

_NAME = re.compile(r"(\d{8})-[A-Za-z0-9._-]+\.parquet")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class HistoryFolder:
    """Writes and drops the files of one run's tables.

    Args:
        run: the folder of the run.
        max_bytes: size of all files of a table, beyond which files are dropped.
    """

    def __init__(self, run: Path, max_bytes: int) -> None:
        self._root = run / HISTORY
        self._max_bytes = max_bytes

    def write(self, table: str, cycle: int, name: str, rows: pa.Table) -> Path:
        """Write the rows of `cycle` as one file, replacing the file of the same cycle and name, and return its path.

        Raises OSError.
        """
        folder = self._root / table
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{cycle:08d}-{_UNSAFE.sub('-', name)}.parquet"
        part = folder / f".{path.name}.{os.getpid()}.part"
        try:
            pq.write_table(rows, part, compression="zstd", row_group_size=_GROUP[table])
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        thin(folder, self._max_bytes)
        return path


def history_files(run: Path, table: str) -> list[Path]:
    """Return the complete files of a table, those of earlier cycles first; an empty list if there is none."""
    folder = run / HISTORY / table
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def cycle_of(path: Path) -> int:
    """Return the cycle that the name of a file has."""
    return int(path.name[:8])


def thin(folder: Path, max_bytes: int) -> None:
    """Drop whole cycles until the files take `max_bytes`, but never the first, the last, or the one before the last.

    The cycle that goes is the one whose neighbours are closest together, so that what stays is evenly spread. Of equal
    ones the oldest goes.
    """
    sizes: dict[int, int] = {}
    paths: dict[int, list[Path]] = {}
    for path in sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)):
        paths.setdefault(cycle_of(path), []).append(path)
        sizes[cycle_of(path)] = sizes.get(cycle_of(path), 0) + path.stat().st_size
    cycles = sorted(sizes)
    total = sum(sizes.values())
    while total > max_bytes and len(cycles) > 3:
        at = min(range(1, len(cycles) - 2), key=lambda i: cycles[i + 1] - cycles[i - 1])
        cycle = cycles.pop(at)
        total -= sizes[cycle]
        for path in paths[cycle]:
            path.unlink(missing_ok=True)


def drop_after(run: Path, cycle: int) -> None:
    """Drop the files of cycles after `cycle`, which a resumed run repeats."""
    for table in (EPISODES, VALUES, NEWEST):
        for path in history_files(run, table):
            if cycle_of(path) > cycle:
                path.unlink(missing_ok=True)


def drop_before(run: Path, table: str, cycle: int) -> None:
    """Drop the files of a table of cycles before `cycle`."""
    for path in history_files(run, table):
        if cycle_of(path) < cycle:
            path.unlink(missing_ok=True)
