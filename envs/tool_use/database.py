"""A database for SQL from the policy: SQLite in memory, which no statement can leave, fill or block.

Four mechanisms ensure this. An authorizer permits reading, changes to the rows of the two tables, and fast
deterministic functions: no other file, schema, pragma, recursion, clock or random number. A progress handler ends a
statement after `MAX_STEPS` instructions. Limits bound the size of a statement and of a value. A page limit bounds the
size of all tables.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from envs.toolkit.tool_calls import ToolError

Rows: TypeAlias = Sequence[tuple[Any, ...]]

TABLES: Mapping[str, tuple[str, ...]] = {
    "staff": ("name", "team", "city", "salary"),
    "sales": ("id", "item", "city", "amount"),
}
SCHEMA = """
CREATE TABLE staff (name TEXT PRIMARY KEY, team TEXT, city TEXT, salary INTEGER);
CREATE TABLE sales (id INTEGER PRIMARY KEY, item TEXT, city TEXT, amount INTEGER);
"""
MAX_QUERY = 500
MAX_ROWS = 20
"""Greatest number of rows in an answer."""
MAX_VALUE = 1_000
"""Greatest size of one value and of one row, in bytes."""
MAX_STEPS = 50_000
STEPS_AT_ONCE = 1_000
MAX_PAGES = 64
"""Greatest size of the database, in pages of 4 KiB."""

FUNCTIONS = frozenset(
    {
        "abs", "avg", "coalesce", "count", "group_concat", "ifnull", "iif", "length", "like", "lower", "max", "min",
        "nullif", "round", "substr", "sum", "total", "upper",
    }
)  # fmt: skip
_READS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ}
_CHANGES = {sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE}
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: MAX_VALUE,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: MAX_VALUE,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 50,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 10,
    sqlite3.SQLITE_LIMIT_COLUMN: 50,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 10,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 30,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
_STATEMENT = re.compile(r"\s*(?:select|insert|update|delete|with)\b", re.IGNORECASE)


class Database:
    """The tables `staff` and `sales`. Rows are written to SQLite at the first query of an episode, not at its reset."""

    def __init__(self) -> None:
        # An environment may be made on one thread and played on another, but never on two at once.
        self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, cached_statements=0)
        self._db.executescript(f"PRAGMA max_page_count = {MAX_PAGES}; PRAGMA temp_store = MEMORY; {SCHEMA}")
        # A policy can cast bytes that are not UTF-8 to text; without this, comparing the rows would fail.
        self._db.text_factory = _decode
        for limit, value in _LIMITS.items():
            self._db.setlimit(limit, value)
        self._steps = 0
        self._rows: Mapping[str, Rows] = {}
        self._filled = False

    def fill(self, rows: Mapping[str, Rows]) -> None:
        """Begin an episode with these rows, by table."""
        self._rows = rows
        self._filled = False

    def query(self, query: str) -> str:
        """Return the rows of a statement, separated by `; `, or the number of changed rows. Raises ToolError."""
        if not _STATEMENT.match(query):
            raise ToolError("only SELECT, INSERT, UPDATE and DELETE are allowed")
        self._fill()
        self._steps = 0
        try:
            cursor = self._db.execute(query)
            found = cursor.fetchmany(MAX_ROWS + 1)
            columns, changed = cursor.description, cursor.rowcount
            cursor.close()
        except (sqlite3.Error, sqlite3.Warning) as error:  # Warning: several statements at once
            raise ToolError(self._explain(error)) from error
        if columns is None:
            return f"{changed} row{'' if changed == 1 else 's'} changed."
        if not found:
            return "No rows."
        text = "; ".join(", ".join(map(_write, row)) for row in found[:MAX_ROWS])
        return text[:MAX_VALUE] + (" ..." if len(found) > MAX_ROWS or len(text) > MAX_VALUE else "")

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return all rows now, by table, in order."""
        if not self._filled:
            return {table: sorted(self._rows[table]) for table in TABLES}
        with self._unguarded():
            return {table: self._db.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in TABLES}

    def close(self) -> None:
        self._db.close()

    def _fill(self) -> None:
        if self._filled:
            return
        with self._unguarded():
            for table, columns in TABLES.items():
                self._db.execute(f"DELETE FROM {table}")
                self._db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", self._rows[table])
        self._filled = True

    @contextmanager
    def _unguarded(self) -> Iterator[None]:
        """Context manager for statements of this class, which may be long because of the policy's rows."""
        self._db.set_authorizer(None)
        self._db.set_progress_handler(None, 0)
        try:
            yield
        finally:
            self._db.set_authorizer(_authorize)
            self._db.set_progress_handler(self._count_steps, STEPS_AT_ONCE)

    def _count_steps(self) -> bool:
        """Progress handler, called every STEPS_AT_ONCE instructions. True ends the statement and undoes its changes."""
        self._steps += STEPS_AT_ONCE
        return self._steps > MAX_STEPS

    def _explain(self, error: Exception) -> str:
        text = str(error)
        if self._steps > MAX_STEPS:
            return "the query takes too long"
        if "not authorized" in text and "function" not in text:
            return f"not allowed; the tables are {describe_tables()}"
        return text[:100] if text.isprintable() else "the query can't be understood"


def describe_tables() -> str:
    return ", ".join(f"{table}({', '.join(columns)})" for table, columns in TABLES.items())


def _authorize(action: int, first: str | None, second: str | None, database: str | None, source: str | None) -> int:
    if action in _READS:
        # A name that is no table is that of a subquery. SQLite's own tables all begin alike.
        return sqlite3.SQLITE_DENY if (first or "").lower().startswith("sqlite_") else sqlite3.SQLITE_OK
    if action in _CHANGES and first in TABLES and database == "main":
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and second in FUNCTIONS:
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _decode(text: bytes) -> str:
    return text.decode(errors="replace")


def _write(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bytes):
        return f"x'{value.hex()[:40]}'"
    text = format(value, ".10g") if isinstance(value, float) else str(value)
    return text if text.isprintable() else ascii(text)
