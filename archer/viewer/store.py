"""The index of all episodes of a folder of runs: one table of figures, one of texts, one of values, in DuckDB.

The tables lie in a temporary file, not in memory, and hold no tokens: a page reads one episode from its own file. The
index grows while runs are active: `refresh` adds new files, replaces changed ones, and forgets those that are gone.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from archer.viewer.runs import Run, find_runs
from archer.viewer.tables import DEMONSTRATIONS, episode_files, newest_files, read_demonstrations, value_files

_SCHEMA = """
CREATE SEQUENCE number;
CREATE TABLE files (file INTEGER, run VARCHAR, name VARCHAR, path VARCHAR);
CREATE TABLE episodes (
    id INTEGER, file INTEGER, row INTEGER, run VARCHAR, episode_id VARCHAR, stage VARCHAR, evaluation VARCHAR,
    cycle INTEGER, version INTEGER, env VARCHAR, task_id VARCHAR, seed BIGINT, ret DOUBLE, success BOOLEAN,
    turns INTEGER, tokens INTEGER, truncated BOOLEAN, created_at TIMESTAMPTZ
);
CREATE TABLE texts (id INTEGER, file INTEGER, text VARCHAR, lower VARCHAR);
CREATE TABLE used (file INTEGER, run VARCHAR, episode_id VARCHAR, turn INTEGER, cycle INTEGER, version INTEGER,
    q FLOAT, v FLOAT, advantage FLOAT, target FLOAT, token_advantage FLOAT[], newest BOOLEAN);
"""
_EPISODES = """
    nextval('number')::INTEGER AS id, {file} AS file, {row} AS row, {run} AS run, episode_id, {stage} AS stage,
    {evaluation} AS evaluation, {cycle} AS cycle, {version} AS version, env, task_id, seed,
    coalesce(list_sum(reward), 0)::DOUBLE AS ret, success, len(reward) AS turns, len(logprobs) AS tokens,
    truncated, created_at::TIMESTAMPTZ AS created_at,
    array_to_string(list_transform(messages, lambda m: m.content), chr(10)) AS text
"""
_KEPT = {name: name for name in ("stage", "evaluation", "cycle", "version")}
_DEMONSTRATED = {"stage": "'demonstration'", "evaluation": "NULL", "cycle": "0", "version": "-1"}
_NEWEST = "values of the newest critic"
_AT_ONCE = 64
"""Files that one statement reads: many, because each statement costs; few, so that pages can be served between."""

Query = Callable[[str, Sequence[Any]], list[dict[str, Any]]]


@dataclass(frozen=True)
class _File:
    run: str
    path: Path
    kind: str  # "episodes", "demonstrations", "values" or "values of the newest critic"
    size: int
    modified: int


class Store:
    """The index over the runs in `root`. Thread-safe; `close` deletes the temporary file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folder = tempfile.TemporaryDirectory(prefix="archer-view-")
        self._database = duckdb.connect(str(Path(self._folder.name) / "index.duckdb"))
        self._database.execute(_SCHEMA)
        self._refreshing = threading.Lock()
        self._numbers: dict[_File, int] = {}
        self._runs: dict[str, tuple[object, Run]] = {}
        self._next = 0
        self._looked = -1e9
        self.waiting = 0
        """Files that `refresh` has found and not yet read."""
        self.problems: dict[str, str] = {}
        """Sentences about files that could not be read, by path."""

    def close(self) -> None:
        """Close the database and delete its file."""
        with self._refreshing:
            self._database.close()
        self._folder.cleanup()

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Return the rows of a statement as dictionaries."""
        cursor = self._database.cursor()
        try:
            cursor.execute(sql, list(parameters))
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        finally:
            cursor.close()

    def runs(self) -> list[Run]:
        """Return the runs in the folder as they are now. Rows are read again only if a file of the run has changed."""
        found = []
        for run in find_runs(self.root):
            signature = run.signature
            known = self._runs.get(run.key)
            if known is None or known[0] != signature:
                known = self._runs[run.key] = (signature, run)
            found.append(known[1])
        return found

    def run(self, key: str) -> Run | None:
        """Return the run of a key, or None. Only keys of runs that were found are known, so that no key is a path."""
        return next((run for run in self.runs() if run.key == key), None)

    def refresh(self, *, at_most_every_s: float = 0.0) -> None:
        """Bring the index up to date with the folder; return at once if another thread does, or did lately."""
        if time.monotonic() - self._looked < at_most_every_s or not self._refreshing.acquire(blocking=False):
            return
        try:
            found = self._files()
            gone = [file for file in self._numbers if file not in found]
            self._forget(gone)
            # Episodes before values: of these only the ones of kept episodes are read.
            unread = (file for file in found if file not in self._numbers)
            new = sorted(unread, key=lambda file: (file.kind, file.run, file.path.name))
            self.waiting = len(new)
            while new:
                first = new[0]
                group = [file for file in new[:_AT_ONCE] if (file.run, file.kind) == (first.run, first.kind)]
                self._add(group)
                new = [file for file in new if file not in self._numbers]
                self.waiting = len(new)
            self._looked = time.monotonic()
        finally:
            self.waiting = 0
            self._refreshing.release()

    def _files(self) -> set[_File]:
        found = set()
        root = self.root.resolve()
        for run in self.runs():
            episodes = [(path, _kind(path)) for path in episode_files(run)]
            values = [
                *((path, "values") for path in value_files(run)),
                *((path, _NEWEST) for path in newest_files(run)),
            ]
            for path, kind in [*episodes, *values]:
                try:
                    stat = path.stat()
                    inside = path.resolve().is_relative_to(root)
                except OSError:
                    continue
                if inside:
                    found.add(_File(run.key, path, kind, stat.st_size, stat.st_mtime_ns))
                else:
                    self.problems[str(path)] = f"{path.name} of {run.key} leads out of the folder; it is not shown"
        return found

    def _forget(self, files: Sequence[_File]) -> None:
        numbers = [self._numbers.pop(file) for file in files]
        if numbers:
            for table in ("files", "episodes", "texts", "used"):
                self.query(f"DELETE FROM {table} WHERE file IN (SELECT unnest(?))", [numbers])

    def _add(self, group: Sequence[_File]) -> None:
        """Read files of one run and kind; if one of them is damaged, read each alone."""
        for file in group:
            self._numbers[file] = self._next
            self._next += 1
        try:
            self._read(group)
        except (duckdb.Error, OSError, ValueError) as error:
            if len(group) == 1:
                path = group[0].path
                self.problems[str(path)] = f"{path.name} of {group[0].run} cannot be read: {_first_line(error)}"
                return
            for file in group:
                self._add([file])

    def _read(self, group: Sequence[_File]) -> None:
        names = [(self._numbers[file], file.run, file.path.name, str(file.path)) for file in group]
        cursor = self._database.cursor()
        cursor.begin()
        try:
            cursor.executemany("INSERT INTO files VALUES (?, ?, ?, ?)", names)
            if group[0].kind in ("values", _NEWEST):
                _insert_values(cursor, group)
            else:
                _insert_episodes(cursor, group, self._numbers[group[0]])
            cursor.commit()
        except BaseException:
            cursor.rollback()
            raise
        finally:
            cursor.close()


def _insert_values(cursor: duckdb.DuckDBPyConnection, group: Sequence[_File]) -> None:
    cursor.execute(
        "INSERT INTO used SELECT f.file, f.run, p.episode_id, turn, p.cycle, p.version, q, v, advantage, target, "
        "token_advantage, ? FROM read_parquet(?, filename=true) p JOIN files f ON f.path = p.filename "
        "WHERE p.episode_id IN (SELECT episode_id FROM episodes WHERE run = ?)",
        [group[0].kind == _NEWEST, [str(file.path) for file in group], group[0].run],
    )


def _insert_episodes(cursor: duckdb.DuckDBPyConnection, group: Sequence[_File], number: int) -> None:
    paths = [str(file.path) for file in group]
    if group[0].kind == "demonstrations":
        table = read_demonstrations(group[0].path)
        if table is None:
            raise ValueError("it is no complete Arrow file of episodes")
        cursor.register("demonstrated", table)
        columns = _EPISODES.format(file=number, row="row_number() OVER () - 1", run="?", **_DEMONSTRATED)
        cursor.execute(f"CREATE TEMP TABLE fresh AS SELECT {columns} FROM demonstrated", [group[0].run])
        cursor.unregister("demonstrated")
    else:
        columns = _EPISODES.format(file="f.file", row="file_row_number", run="f.run", **_KEPT)
        source = "read_parquet(?, filename=true, file_row_number=true, union_by_name=true) p"
        cursor.execute(
            f"CREATE TEMP TABLE fresh AS SELECT {columns} FROM {source} JOIN files f ON f.path = p.filename", [paths]
        )
    cursor.execute("INSERT INTO episodes SELECT * EXCLUDE (text) FROM fresh")
    cursor.execute("INSERT INTO texts SELECT id, file, text, lower(text) FROM fresh")
    cursor.execute("DROP TABLE fresh")


def _kind(path: Path) -> str:
    return "demonstrations" if path.name == DEMONSTRATIONS else "episodes"


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
