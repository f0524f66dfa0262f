"""Tool use: its tools, its tasks and its demonstrator. Rules of all environments are in test_envs_rules."""

from __future__ import annotations

import json
import warnings
from collections import Counter

import pytest

import envs
from envs import EnvArgumentError
from envs.tool_use import draw_task
from envs.tool_use.agenda import Agenda, Meeting
from envs.tool_use.calculator import calculate
from envs.tool_use.content import LONGEST_MEETING
from envs.tool_use.database import MAX_PAGES, MAX_ROWS, Database
from envs.tool_use.demonstrator import FINISH
from envs.tool_use.desktop import Desktop
from envs.tool_use.files import MAX_FILES, MAX_SIZE, Files
from envs.tool_use.game import FAILED, MAX_TURNS, SOLVED
from envs.tool_use.tasks import FAMILIES, LEVELS
from envs.tool_use.tools import TOOLS
from envs.toolkit.tool_calls import ToolError, write_call

DRAWN = [draw_task(seed, FAMILIES) for seed in range(600)]


# --- whole episodes ---------------------------------------------------------------------------------------

EPISODE = [
    ('{"tool": "sql", "args": {"query": "SELECT sum(amount) FROM sales WHERE item = \'chair\'"}}', "188"),
    ("188 is the sum", 'Error: not a call: write {"tool": NAME, "args": {...}}.'),
    ('{"tool": "calc", "args": {"expression": "188*20/100"}}', "37.6"),
    ('{"tool": "read", "args": {"path": "share.txt"}}', "Error: no file 'share.txt'."),
    ('{"tool": "write", "args": {"path": "share.txt", "text": " 37.6\\n"}}', "Wrote share.txt."),
    ('{"tool": "done"}', "The task is solved."),
]


def test_an_episode_word_for_word():
    env = envs.make("tool_use", observe="brief")
    observation, info = env.reset(seed=0)
    assert observation == "Task: Write 20 percent of the whole amount of chair in the table sales to share.txt."
    assert info["task_id"] == "share_of_sales-0"
    steps = [env.step(action) for action, _ in EPISODE]
    assert [step[0] for step in steps] == [answer for _, answer in EPISODE]
    assert [step[1] for step in steps] == [0.0] * 5 + [1.0]
    assert [step[2] for step in steps] == [False] * 5 + [True]
    assert [step[4]["success"] for step in steps] == [False] * 5 + [True]
    assert [step[4]["invalid_action"] for step in steps] == [False, True, False, True, False, False]


def play(seed: int, *actions: str, **kwargs) -> list[tuple]:
    env = envs.make("tool_use", **kwargs)
    env.reset(seed=seed)
    return [env.step(action) for action in actions]


def test_a_task_is_solved_by_its_script_and_by_nothing_less_or_more():
    spoil = [
        write_call("write", path="more.txt", text=""),
        write_call("sql", query="INSERT INTO sales VALUES (99, 'mug', 'Bonn', 1)"),
        write_call("book", title="more", day="fri", start=16, hours=1),
    ]
    for family in FAMILIES:
        seed = next(seed for seed, (_, task) in enumerate(DRAWN) if task.family == family)
        script = DRAWN[seed][1].script
        assert play(seed, *script, FINISH)[-1][:3] == (SOLVED, 1.0, True)
        assert play(seed, *script[:-1], FINISH)[-1][:3] == (FAILED, 0.0, True)
        for call in spoil:
            assert play(seed, *script, call, FINISH)[-1][:3] == (FAILED, 0.0, True), (family, call)


def test_other_calls_to_the_same_state_solve_the_task():
    seed = next(seed for seed, (_, task) in enumerate(DRAWN) if task.family == "move_file")
    content, task = DRAWN[seed]
    args = json.loads(task.script[0])["args"]
    write = write_call("write", path=args["to"], text=content.files[args["path"]])
    assert play(seed, write, write_call("delete", path=args["path"]), FINISH)[-1][1] == 1.0


def test_turns_without_an_end_are_truncated():
    steps = play(0, *[write_call("list")] * MAX_TURNS)
    assert [step[3] for step in steps] == [False] * (MAX_TURNS - 1) + [True]


def test_the_first_observation_contains_tools_and_tables_unless_brief():
    full, brief = (envs.make("tool_use", observe=observe).reset(seed=1)[0] for observe in ("full", "brief"))
    assert full == (
        f"{TOOLS.describe()} Tables: staff(name, team, city, salary), sales(id, item, city, amount). {brief}"
    )
    assert [tool["function"]["name"] for tool in envs.spec("tool_use").tools] == list(TOOLS.tools)


# --- tasks ------------------------------------------------------------------------------------------------


def test_the_scripts_write_values_that_the_tools_answered():
    desktop = Desktop()
    found = Counter()
    for content, task in DRAWN:
        desktop.fill(content)
        answers = [desktop.do(TOOLS.read(call)) for call in task.script]
        if task.family in ("sum_file", "count_rows", "sum_rows", "sum_folder", "share_of_sales"):
            assert answers[-2] == json.loads(task.script[-1])["args"]["text"]
            found[task.family] += 1
        if task.family == "report":
            assert answers[0] == json.loads(task.script[1])["args"]["text"]
            found[task.family] += 1
        if task.family == "find_letter":
            subject = task.text.split()[5]
            assert [subject in answer for answer in answers[1:-1]] == [False] * (len(answers) - 3) + [True]
            found[task.family] += 1
    assert len(found) == 7
    assert min(found.values()) > 5
    desktop.close()


def test_tasks_are_sound_and_differ():
    assert {task.family for _, task in DRAWN} == set(FAMILIES)
    assert len({(task.text, task.script) for _, task in DRAWN}) > 400
    for content, task in DRAWN:
        assert len(task.script) < MAX_TURNS
        assert content.meetings
        for day in ("mon", "tue", "wed"):
            assert Agenda(content.meetings).first_free(day, LONGEST_MEETING) is not None


def test_levels_and_tasks_restrict_the_drawn_tasks():
    assert [len(LEVELS[level]) for level in LEVELS] == [7, 12, 18]
    for level, families in LEVELS.items():
        env = envs.make("tool_use", level=level)
        found = {env.reset(seed=seed)[1]["task_id"].split("-")[0] for seed in range(200)}
        assert found == set(families)
    env = envs.make("tool_use", tasks=["book", "cancel"], cases=2)
    first = [env.reset(seed=seed) for seed in range(4)]
    assert first[0][0] == first[2][0] != first[1][0] == first[3][0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"tasks": ["sum_folder"], "level": 1}, "tasks has no 'sum_folder'"),
        ({"tasks": ["boook"]}, "did you mean 'book'"),
        ({"level": 0}, r"level is 0, must be one of \(1, 2, 3\)"),
        ({"observe": "none"}, "observe is 'none'"),
        ({"cases": -1}, "cases is -1"),
    ],
)
def test_bad_arguments(arguments, says):
    with pytest.raises(EnvArgumentError, match=says):
        envs.make("tool_use", **arguments)


# --- the calculator ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2*3", "7"),
        ("-(2+3) ** 2", "-25"),
        ("7 // 2 + 7 % 4", "6"),
        ("0.1 + 0.2", "0.3"),
        ("8 / 2", "4"),
        ("2**10", "1024"),
        ("round(2.567, 2) + round(12345, -2)", "12302.57"),
        ("max(1, 2, 3) - min(4, 5) + abs(-6)", "5"),
        ("sqrt(16)", "4"),
        ("round(1, -999999999)", "0"),
        ("-" * 199 + "1", "-1"),
    ],
)
def test_arithmetic(expression, value):
    assert calculate(expression) == value


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("", "not arithmetic"),
        ("1 +", "not arithmetic"),
        ("1, 2", "not arithmetic"),
        ("max", "not arithmetic"),
        ("0777", "not arithmetic"),
        ("max(1)(2)", "not arithmetic"),
        ("max(*1)", "not arithmetic"),
        ("(" * 100 + ")" * 100, "not arithmetic"),
        ("(" * 200, "not arithmetic"),
        ("1" * 201, "longer than 200"),
        ("__import__('os').system('true')", "only numbers"),
        ("1if 1else 2", "only numbers"),
        ("abs.real", "only numbers"),
        ("abs . max", "not arithmetic"),
        ("'a' * 99", "only numbers"),
        ("10 ** 16", "larger than"),
        ("9 ** 9 ** 9 ** 9", "exponent"),
        ("9 ** -65", "exponent"),
        ("9" * 200, "larger than"),
        ("2.0 ** 64 ** 1 * 10 ** 15", "larger than"),
        ("1 / 0", "division by zero"),
        ("5 % 0", "division by zero"),
        ("0 ** -1", "division by zero"),
        ("(-8) ** 0.5", "no real number"),
        ("sqrt(-1)", "no value"),
        ("max()", "no value"),
        ("round(1.5, 2, 3)", "no value"),
    ],
)
def test_other_text_is_not_arithmetic(expression, says):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ToolError, match=says):
            calculate(expression)


# --- the database -----------------------------------------------------------------------------------------


@pytest.fixture
def database():
    made = Database()
    made.fill(
        {
            "staff": [("Ann", "sales", "Bonn", 3000), ("Ben", "design", "Oslo", 2500)],
            "sales": [(i, "mug", "Bonn", 10 * i) for i in range(1, 11)],
        }
    )
    yield made
    made.close()


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("SELECT name, salary FROM staff WHERE city = 'Bonn'", "Ann, 3000"),
        (" select name from staff order by salary", "Ben; Ann"),
        ("SELECT avg(amount), sum(amount) FROM sales", "55, 550"),
        ("WITH big AS (SELECT * FROM sales WHERE amount > 80) SELECT count(*) FROM big", "2"),
        ("SELECT name FROM staff WHERE name LIKE 'A%'", "Ann"),
        ("SELECT * FROM staff WHERE 1 = 0", "No rows."),
        ("SELECT NULL, 1.5, x'0aff', 'é'", "null, 1.5, x'0aff', é"),
        ("UPDATE staff SET salary = 1", "2 rows changed."),
        ("DELETE FROM sales WHERE id = 1", "1 row changed."),
        ("INSERT INTO staff VALUES ('Cleo', 'sales', 'Rome', 1)", "1 row changed."),
    ],
)
def test_queries(database, query, answer):
    assert database.query(query) == answer


BAD_QUERIES = [
    ("", "only SELECT"),
    ("DROP TABLE staff", "only SELECT"),
    ("PRAGMA writable_schema = 1", "only SELECT"),
    ("ATTACH DATABASE '/tmp/x' AS x", "only SELECT"),
    ("VACUUM INTO '/tmp/x'", "only SELECT"),
    ("BEGIN", "only SELECT"),
    ("EXPLAIN SELECT 1", "only SELECT"),
    ("/* */ DROP TABLE staff", "only SELECT"),
    ("SELECT 1; DROP TABLE staff", "one statement at a time"),
    ("SELECT * FROM pragma_table_info('staff')", "not allowed"),
    ("UPDATE sqlite_master SET sql = ''", "table sqlite_master may not be modified|not allowed"),
    ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n", "not allowed"),
    ("SELECT load_extension('x')", "not authorized to use function"),
    ("SELECT random()", "not authorized to use function"),
    ("SELECT CURRENT_TIMESTAMP", "not authorized to use function"),
    # One instruction whose time is the product of two lengths.
    ("SELECT trim(item, city) FROM sales", "not authorized to use function"),
    ("SELECT zeroblob(1000000000)", "not authorized to use function"),
    ("SELECT printf('%1000000000d', 1)", "not authorized to use function"),
    ("SELECT count(*) FROM sales a, sales b, sales c, sales d, sales e, sales f", "takes too long"),
    ("SELECT a.id FROM sales a, sales b, sales c, sales d, sales e ORDER BY a.amount + e.amount", "takes too long"),
    ("INSERT INTO sales SELECT NULL, 'x', 'x', 1 FROM sales a, sales b, sales c, sales d, sales e", "takes too long"),
    ("UPDATE sales SET item = (SELECT group_concat(a.item || b.item) FROM sales a, sales b, sales c)", "too big"),
    ("SELECT " + "1 + " * 100 + "1", "too large"),
    ("SELECT ?", "bindings"),
    ("SELECT x FROM nowhere", "no such table"),
    ("SELECT sum(9223372036854775807) FROM sales", "integer overflow"),
]


@pytest.mark.parametrize(("query", "says"), BAD_QUERIES)
def test_no_query_leaves_fills_or_blocks_the_database(database, query, says):
    database.query("SELECT 1")
    before = database.rows()
    with pytest.raises(ToolError, match=says):
        database.query(query)
    assert database.rows() == before
    assert database.query("SELECT count(*) FROM staff") == "2"


def test_the_database_grows_no_further_than_its_pages(database):
    grow = (
        "INSERT INTO sales SELECT NULL, 'a long string, a long string, a long string, a long string', city, 1 "
        "FROM staff, (SELECT id FROM sales LIMIT 100)"
    )
    grown = 0
    with pytest.raises(ToolError, match="full"):  # noqa: PT012
        while grown < 2 * MAX_PAGES:
            database.query(grow)
            grown += 1
    assert 10 < grown < 2 * MAX_PAGES
    assert database.query("SELECT count(*) FROM staff") == "2"
    database.fill({"staff": [], "sales": [(1, "a", "b", 1)]})
    assert database.query("SELECT * FROM sales") == "1, a, b, 1"


def test_long_answers_are_cut_and_bytes_are_shown(database):
    database.query("INSERT INTO sales SELECT NULL, 'lamp', 'Kiel', 1 FROM sales, staff")
    assert database.query("SELECT id FROM sales").count(";") == MAX_ROWS - 1
    assert database.query("SELECT id FROM sales").endswith("; 20 ...")
    assert database.query("UPDATE staff SET city = CAST(x'ff1b0a' AS TEXT)") == "2 rows changed."
    assert database.query("SELECT city FROM staff LIMIT 1") == r"'\ufffd\x1b\n'"
    assert len(database.rows()["staff"]) == 2


def test_rows_of_any_number_can_be_compared_and_replaced(database, monkeypatch):
    assert database.query("INSERT INTO sales (id) SELECT NULL FROM sales a, sales b, sales c") == "1000 rows changed."
    monkeypatch.setattr("envs.tool_use.database.MAX_STEPS", 0)
    with pytest.raises(ToolError, match="takes too long"):
        database.query("SELECT sum(id) FROM sales")
    assert len(database.rows()["sales"]) == 1010
    database.fill({"staff": [], "sales": [(1, "a", "b", 1)]})
    assert database.query("SELECT * FROM sales") == "1, a, b, 1"


def test_rows_are_the_same_before_and_after_the_first_query(database):
    before = database.rows()
    database.query("SELECT 1")
    assert database.rows() == before


# --- files and calendar -----------------------------------------------------------------------------------


def test_files():
    files = Files({"a.txt": "one two", "box/b.txt": "", "box/deep/c.txt": "x"})
    assert files.list() == "a.txt, box/b.txt, box/deep/c.txt"
    assert files.list("box/") == "box/b.txt, box/deep/c.txt"
    assert files.read("box/b.txt") == "(empty)"
    assert files.edit("a.txt", "o", "0") == "Changed a.txt."
    assert files.read("a.txt") == "0ne tw0"
    assert files.move("a.txt", "box/a.txt") == "Moved a.txt to box/a.txt."
    assert files.delete("box/b.txt") == "Deleted box/b.txt."
    assert files.files == {"box/a.txt": "0ne tw0", "box/deep/c.txt": "x"}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (("read", "../etc/passwd"), "no file"),
        (("list", "nowhere"), "no folder 'nowhere'"),
        (("write", "../x", "x"), "no path"),
        (("write", "/x", "x"), "no path"),
        (("write", "box//x", "x"), "no path"),
        (("write", "x/", "x"), "no path"),
        (("write", "ü.txt", "x"), "no path"),
        (("write", "x" * 61, "x"), "no path"),
        (("write", "box", "x"), "a file and a folder at once"),
        (("write", "a.txt/b", "x"), "a file and a folder at once"),
        (("write", "x", "x" * (MAX_SIZE + 1)), "larger than"),
        (("edit", "a.txt", "", "x"), "has no ''"),
        (("edit", "a.txt", "z", "x"), "has no 'z'"),
        (("edit", "a.txt", "o", "x" * 999), "larger than"),
        (("move", "a.txt", "box/b.txt"), "already"),
        (("move", "a.txt", "a.txt"), "already"),
        (("delete", "box"), "no file"),
    ],
)
def test_an_impossible_file_operation_changes_nothing(call, says):
    before = {"a.txt": "one two", "box/b.txt": "x"}
    files = Files(before)
    with pytest.raises(ToolError, match=says):
        getattr(files, call[0])(*call[1:])
    assert files.files == before


def test_the_number_of_files_is_limited():
    files = Files({f"{i}.txt": "" for i in range(MAX_FILES)})
    files.write("0.txt", "x")
    with pytest.raises(ToolError, match=f"{MAX_FILES} files"):
        files.write("more.txt", "x")


def test_the_calendar():
    agenda = Agenda([Meeting("mon", 9, 2, "demo"), Meeting("mon", 12, 1, "lunch")])
    assert agenda.agenda("mon") == "mon: 9-11 demo, 12-13 lunch."
    assert agenda.agenda("tue") == "tue: nothing."
    assert [agenda.first_free("mon", hours) for hours in (1, 2, 4, 5)] == [11, 13, 13, None]
    assert agenda.book("talk", "mon", 11, 1) == "Booked mon 11-12 talk."
    assert agenda.shift("demo", "mon", 13) == "Moved to mon 13-15 demo."
    assert agenda.shift("demo", "mon", 14) == "Moved to mon 14-16 demo."
    assert agenda.cancel("lunch") == "Cancelled lunch."
    assert agenda.agenda("mon") == "mon: 11-12 talk, 14-16 demo."
    for call, says in [
        (("book", "talk", "tue", 9, 1), "there is a 'talk' already"),
        (("book", " ", "tue", 9, 1), "title is empty"),
        (("book", "x", "mon", 10, 2), "mon 11-12 talk is then"),
        (("book", "x", "mon", 15, 1), "mon 14-16 demo is then"),
        (("book", "x", "tue", 8, 1), "from 9 to 17"),
        (("book", "x", "tue", 16, 2), "from 9 to 17"),
        (("book", "x", "tue", 9, 0), "from 9 to 17"),
        (("book", "x", "tue", 9, 2**53), "from 9 to 17"),
        (("shift", "demo", "mon", 10), "talk is then"),
        (("shift", "x", "mon", 10), "no meeting 'x'"),
        (("cancel", "x"), "no meeting 'x'"),
    ]:
        with pytest.raises(ToolError, match=says):
            getattr(agenda, call[0])(*call[1:])
    assert agenda.agenda("mon") == "mon: 11-12 talk, 14-16 demo."


# --- the demonstrator -------------------------------------------------------------------------------------------


def test_the_best_play_solves_every_task():
    for game in envs.demonstrate("tool_use", episodes=400, skill=1.0, seed=0):
        assert game.ret == 1.0, game


def test_returns_by_skill():
    rows = envs.returns_by_skill("tool_use", [0.0, 0.5, 1.0], episodes=200)
    for row, (low, high) in zip(rows, [(0.0, 0.03), (0.2, 0.6), (1.0, 1.0)], strict=True):
        assert low <= row.mean <= high, row
