"""The programs that measure environments: their bounds, their table in the docs, and that they run."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import envs
from bench import env_returns
from bench.env_returns import BEGIN, DOCS, END, guessing_cost, halving_cost, write_table
from bench.env_tasks import tasks

ROOT = Path(__file__).resolve().parents[2]


@cache
def least_cost(words: int) -> int:
    """By trying every first question and every split."""
    if words <= 1:
        return 0
    splits = [words + least_cost(part) + least_cost(words - part) for part in range(1, words)]
    return min(words - 1 + least_cost(words - 1), *splits)


def test_no_order_of_questions_is_better_than_halving():
    assert [halving_cost(words) for words in range(60)] == [least_cost(words) for words in range(60)]
    # Ten words: the script, which has a question for each split, gets there.
    assert halving_cost(10) == 28


def test_guesses_alone():
    assert guessing_cost(1, 2) == 0
    assert guessing_cost(4, 2) == 3 + 2 + 1
    assert guessing_cost(4, 100) == 3
    assert guessing_cost(713, 238) == 712 + 475


def row(env: str, arguments: str = "") -> dict:
    cells = {f"skill {skill:g}": f"{skill:.2f} ± 0.00" for skill in env_returns.SKILLS}
    return {"env": env, "arguments": arguments, "best": "at most 1", "published": "BC -1.0", **cells}


def test_the_table_goes_between_its_markers_and_nowhere_else(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(f"# Head\n\n{BEGIN}\nold\n{END}\n\ntail\n")
    for _ in range(2):
        write_table(page, [row("maze"), row("detective", "story=x.z5")])
    head, _, rest = page.read_text().partition(BEGIN)
    table, _, tail = rest.partition(END)
    assert (head, tail) == ("# Head\n\n", "\n\ntail\n")
    lines = table.strip().splitlines()
    assert lines[0] == "| environment | random | skill 0.2 | skill 0.5 | skill 1 | best possible | published |"
    assert lines[2:] == [
        "| `maze` | 0.00 ± 0.00 | 0.20 ± 0.00 | 0.50 ± 0.00 | 1.00 ± 0.00 | at most 1 | BC -1.0 |",
        "| `detective` (story=x.z5) | 0.00 ± 0.00 | 0.20 ± 0.00 | 0.50 ± 0.00 | 1.00 ± 0.00 | at most 1 | BC -1.0 |",
    ]
    page.write_text("no markers")
    with pytest.raises(SystemExit, match="needs the lines"):
        write_table(page, [])


def test_the_docs_have_every_task_that_has_a_script_and_no_dependency():
    text = DOCS.read_text(encoding="utf-8")
    table = text.partition(BEGIN)[2].partition(END)[0]
    for spec in envs.specs():
        try:
            envs.make_demonstrator(spec.id, skill=0.5)
        except envs.EnvError:
            continue
        if spec.extra is None:
            assert f"| `{spec.id}` |" in table, f"{spec.id} has no row: run python bench/env_returns.py"


def test_what_is_left_out_is_said(capsys: pytest.CaptureFixture[str]):
    asked = argparse.Namespace(envs=["detective", "webshop_http", "maze"], set=["maze.observe=partial"])
    played = {spec.id: kwargs for spec, kwargs in tasks(asked)}
    assert played == {"maze": {"observe": "partial"}}
    said = capsys.readouterr().err
    assert "detective: left out: " in said
    assert "webshop_http: left out: a client of a server" in said


@pytest.mark.parametrize(
    ("program", "keys"),
    [
        ("envs.py", {"steps", "resets", "first_mib", "next_kib", "turns", "isolation"}),
        ("env_returns.py", {"mean 0", "mean 1", "success 1", "best", "episodes"}),
    ],
)
def test_the_programs_print_and_write_their_figures(tmp_path: Path, program: str, keys: set[str]):
    docs = DOCS.read_bytes()
    command = [sys.executable, str(ROOT / "bench" / program), "--quick", "--out", str(tmp_path / "out.json")]
    command += ["--envs", "wordle", "maze", "--set", "maze.max_turns=20"]
    command += ["--turns", "200"] if program == "envs.py" else ["--episodes", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "out.json").read_text())
    assert [row["env"] for row in written["rows"]] == ["maze", "wordle"]
    for measured in written["rows"]:
        assert keys <= measured.keys()
    assert "max_turns=20" in str(written["rows"][0]["arguments"])
    assert "wordle" in done.stdout
    assert DOCS.read_bytes() == docs
