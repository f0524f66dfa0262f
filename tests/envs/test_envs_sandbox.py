"""Attempts to leave the tools of an environment: files, SQL, arithmetic, calls and patterns. Each one was tried."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import envs
from envs.tool_use.calculator import calculate
from envs.tool_use.database import Database
from envs.tool_use.files import MAX_FILES, MAX_SIZE, Files
from envs.toolkit.tool_calls import ToolError

ROWS: dict[str, Any] = {"staff": [("Ann", "a", "Oslo", 1)], "sales": [(i, "pen", "Oslo", i) for i in range(20)]}
PATIENCE_S = 5.0
"""Processor time of one attempt, ten times of what the slowest took on a busy machine."""


def spent(call: Callable[[], object]) -> float:
    """Return the processor time that a call took."""
    before = time.process_time()
    call()
    return time.process_time() - before


@pytest.fixture
def database():
    database = Database()
    database.fill(ROWS)
    yield database
    database.close()


OUTSIDE = [
    "ATTACH DATABASE '{file}' AS x",
    "SELECT 1; ATTACH DATABASE '{file}' AS x",
    "WITH a AS (SELECT 1) ATTACH DATABASE '{file}' AS x",
    "/**/ATTACH/**/DATABASE/**/'{file}'/**/AS/**/x",
    "DETACH DATABASE main",
    "VACUUM INTO '{file}'",
    "SELECT writefile('{file}', 'x')",
    "SELECT readfile('/etc/passwd')",
    "SELECT load_extension('{file}')",
    "SELECT fts3_tokenizer('simple')",
    "SELECT edit('x', 'touch {file}')",
    "PRAGMA database_list",
    "PRAGMA writable_schema = 1",
    "PRAGMA temp_store_directory = '{file}'",
    "SELECT * FROM pragma_database_list",
    "SELECT * FROM pragma_function_list",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM sqlite_schema",
    "INSERT INTO sqlite_master VALUES (1, 2, 3, 4, 5)",
    "UPDATE sqlite_schema SET sql = ''",
    "DELETE FROM sqlite_master",
    "CREATE TABLE x (a)",
    "CREATE TRIGGER t AFTER INSERT ON staff BEGIN DELETE FROM sales; END",
    "CREATE VIRTUAL TABLE x USING fts5(a)",
    "SELECT * FROM dbstat",
    "SELECT * FROM json_each('[1]')",
    "SELECT sqlite_version(), sqlite_source_id()",
    "SELECT random()",
    "SELECT datetime('now')",
    "BEGIN",
    "SELECT 1 FROM staff WHERE changes() > 0",
    "EXPLAIN SELECT 1",
    "INSERT INTO temp.staff VALUES (1, 2, 3, 4)",
    "SELECT :a, @b, $c, ?1",
]
"""Statements that would reach a file, the schema, an extension, the clock or chance."""


@pytest.mark.parametrize("statement", OUTSIDE)
def test_no_statement_reaches_beyond_its_two_tables(database, statement, tmp_path):
    file = tmp_path / "reached"
    with pytest.raises(ToolError):
        database.query(statement.format(file=file))
    assert list(tmp_path.iterdir()) == []
    assert database.query("SELECT count(*) FROM sales") == "20"


ENDLESS = [
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c",
    "SELECT count(*) FROM sales a, sales b, sales c, sales d, sales e, sales f, sales g",
    "SELECT group_concat(a.item || b.item || c.item || d.item) FROM sales a, sales b, sales c, sales d",
    "SELECT max(length(group_concat(a.item))) FROM sales a, sales b, sales c, sales d, sales e",
    "SELECT DISTINCT a.id, b.id, c.id, d.id, e.id FROM sales a, sales b, sales c, sales d, sales e ORDER BY 5, 4",
    "SELECT 1 WHERE '" + "a" * 200 + "' LIKE '" + "%a" * 100 + "b'",
    "SELECT abs(" * 60 + "1" + ")" * 60,
    "INSERT INTO sales SELECT a.id + 1000 * b.id + 1000000 * c.id, 'x', 'y', 1 FROM sales a, sales b, sales c",
    "UPDATE sales SET item = item || item || item || item || item || item || item || item",
    "SELECT substr(item, -9223372036854775808, 9223372036854775807) FROM sales",
    "SELECT round(1, 9223372036854775807), abs(-9223372036854775808)",
    "SELECT zeroblob(1000000000)",
    "SELECT hex(randomblob(1000000000))",
    "SELECT printf('%.*c', 1000000000, 'x')",
    "SELECT replace('" + "a" * 200 + "', 'a', '" + "b" * 200 + "')",
]
"""Statements that would run for ever or take all memory."""


@pytest.mark.parametrize("statement", ENDLESS, ids=range(len(ENDLESS)))
def test_no_statement_is_endless_or_huge(database, statement):
    def attempt() -> None:
        try:
            assert len(database.query(statement)) < 2_000
        except ToolError:
            return

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert spent(attempt) < PATIENCE_S
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "it took 200 MB"
    database.fill(ROWS)
    assert database.query("SELECT count(*) FROM sales") == "20"


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "a/../../x",
        "/etc/passwd",
        "~/x",
        "a//b",
        "a/./b",
        ".",
        "..",
        "",
        "a/",
        "a\\b",
        "a\x00b",
        "\x00",
        "C:x",
        "file:///etc/passwd",
        "a\n/b",
        "ａ/．．/b",
        "%2e%2e/x",
        "$HOME",
        "`id`",
        "a" * 61,
        "con:",
        "…/x",
        "a/b/" * 20,
    ],
)
def test_no_path_names_anything_but_a_text_in_memory(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = Files({"a.txt": "x"})
    for attempt in (
        lambda: files.write(path, "x"),
        lambda: files.read(path),
        lambda: files.move("a.txt", path),
        lambda: files.edit(path, "x", "y"),
        lambda: files.delete(path),
    ):
        with pytest.raises(ToolError):
            attempt()
    assert files.files == {"a.txt": "x"}
    assert list(tmp_path.iterdir()) == []


def test_files_stay_small_however_they_grow():
    files = Files({"a.txt": "ab" * 100})
    for _ in range(20):
        with pytest.raises(ToolError, match="larger than"):  # noqa: PT012
            files.edit("a.txt", "a", "a" * 40)
            files.edit("a.txt", "b", "b" * 40)
    assert all(len(text) <= MAX_SIZE for text in files.files.values())
    with pytest.raises(ToolError, match="files already"):  # noqa: PT012
        for number in range(MAX_FILES + 1):
            files.write(f"f{number}", "x")


@pytest.mark.parametrize(
    "expression",
    [
        "9**9**9",
        "9**64**64",
        "(" * 90 + "1" + ")" * 90,
        "-" * 190 + "1",
        "1/0",
        "0**-1",
        "(-8)**0.5",
        "1e999",
        "9" * 200,
        "round(1,-999999999)",
        "max()",
        "abs(1,2)",
        "__import__('os')",
        "().__class__",
        "1 if 1 else 2",
        "[1]*9",
        "'a'*9",
        "10**15*10**15",
        "2**64**0.5",
        "sqrt(10**40)",
        "min(max)",
        "abs(abs)",
        "1//0",
        "1%0",
        "1j**1j",
        "lambda:1",
        "1_0",
    ],
)
def test_no_expression_runs_code_or_grows(expression):
    def attempt() -> None:
        try:
            assert len(calculate(expression)) < 40
        except ToolError:
            return

    assert spent(attempt) < PATIENCE_S


REPEATED = [
    "a",
    "1",
    " ",
    "?",
    "-",
    "is it ",
    "the ",
    "any ",
    "of ",
    "olympics ",
    "hosted ",
    "million ",
    "1 000 ",
    "in ",
    "(",
    "[",
    "{",
    '"',
    "'",
    '["',
    "\\",
    ",",
    "no ",
    "not ",
    "please ",
    "tell me if ",
    "order ",
    "refund ",
    "click[",
    "search[",
    "a,",
    "aa ",
    "<",
    "é",
    "ﬁ",
    "\u0301",
    "the the ",
    "and ",
    "or ",
    "summer ",
    "people ",
    "more than ",
]
"""Words whose repetition makes a pattern with nested repeats exponential."""


@pytest.mark.parametrize("env_id", [spec.id for spec in envs.specs() if spec.isolation == "inline"])
def test_no_action_makes_a_pattern_exponential(env_id):
    env = envs.make(env_id)
    env.reset(seed=1)
    for word in REPEATED:
        action = word * (2_000 // len(word)) + "!"
        for text in (action, json.dumps({"tool": word, "args": {"text": action}})):

            def attempt(text: str = text) -> None:
                _, _, terminated, truncated, _ = env.step(text)
                if terminated or truncated:
                    env.reset(seed=1)

            assert spent(attempt) < PATIENCE_S, f"{word!r} repeated"
    env.close()


def test_a_hostile_link_in_the_run_is_not_followed(tmp_path: Path):
    """Files of an environment are texts in memory: a link beside the process changes nothing."""
    (tmp_path / "a.txt").symlink_to("/etc/passwd")
    files = Files({"a.txt": "x"})
    assert files.read("a.txt") == "x"
    files.delete("a.txt")
    assert (tmp_path / "a.txt").is_symlink()
