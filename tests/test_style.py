"""Check what every file of the rooms keeps to: its size, the size of its functions, its front doors and its words."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("actors", "archer", "buffer", "envs", "learner")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
MOST_LINES, MOST_LINES_OF_A_FUNCTION, LEAST_OF_A_FRONT_DOOR = 350, 60, 40
# Written in parts, so that this file does not find itself.
BANNED = re.compile(r"\b(?:{})\b".format("|".join(("to" + "ld", "who" + "ever", "an" + "ew"))), re.IGNORECASE)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_file_is_long() -> None:
    lengths = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert not {path: length for path, length in lengths.items() if length > MOST_LINES}


def test_most_files_are_short() -> None:
    lengths = sorted(len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES)
    assert lengths[len(lengths) // 2] < 150


def test_no_function_is_long() -> None:
    found = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MOST_LINES_OF_A_FUNCTION:
                    found.append(f"{relative(path)}:{node.lineno} {node.name} has {lines} lines")
    assert not found, "\n".join(found)


def test_every_front_door_says_what_is_behind_it() -> None:
    found = []
    for folder in sorted({path.parent for path in MODULES}):
        door = folder / "__init__.py"
        said = ast.get_docstring(ast.parse(door.read_text(encoding="utf-8"))) if door.is_file() else None
        if len(said or "") < LEAST_OF_A_FRONT_DOOR or "TBD" in (said or ""):
            found.append(f"{relative(door)}: {said!r}")
    assert not found, "\n".join(found)


def test_front_doors_import_nothing_heavy() -> None:
    program = f"""
import sys
import {", ".join(ROOMS)}
print([name for name in ("deepspeed", "ray", "torch", "transformers", "vllm") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_the_words_that_hide_who_acts_are_nowhere() -> None:
    """Readers whose first language is not English stumble over these three words."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file():
            lines = path.read_bytes().decode("utf-8", errors="ignore").splitlines()
            found += [f"{name}:{number}: {line.strip()}" for number, line in enumerate(lines, 1) if BANNED.search(line)]
    assert not found, "\n".join(found)


# They show the time to people, or store it.
READS_THE_CLOCK = {
    "archer/driver/board.py",
    "archer/driver/inline.py",
    "archer/driver/progress.py",
    "archer/trackers/mlflow_run.py",
    "archer/trackers/tensorboard.py",
    "archer/viewer/runs.py",
    "archer/viewer/top.py",
}


def test_no_wait_depends_on_the_clock_of_the_wall() -> None:
    """It jumps: at a correction, or when a virtual machine wakes. Waits and durations use the monotonic clock."""
    found = {relative(path) for path in MODULES if "time.time()" in path.read_text(encoding="utf-8")}
    assert found == READS_THE_CLOCK


# Each awaits its tasks itself, where it starts them.
AWAITS_ITS_TASKS = {
    "actors/engine/engine.py",
    "actors/inline/rollouts.py",
    "actors/rollout/coalescer.py",
    "envs/hosting/async_env.py",
}


def test_no_task_dies_unseen() -> None:
    """A background task whose failure nobody sees leaves those who wait for it waiting for ever."""
    starts = re.compile(r"\b(?:create_task|ensure_future)\(")
    found = {relative(path) for path in MODULES if starts.search(path.read_text(encoding="utf-8"))}
    assert found == AWAITS_ITS_TASKS | {"actors/pool/watched.py"}
