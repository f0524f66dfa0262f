"""Holds the arrows between the rooms: who may import whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {
    "envs": set(),
    "buffer": set(),
    "actors": {"envs", "buffer"},
    "learner": {"buffer"},
    "archer": {"learner", "actors", "buffer", "envs"},
    "bench": {"archer", "learner", "actors", "buffer", "envs"},
}
OURS = {*ROOMS, "tests"}


def imported(source: str) -> dict[str, int]:
    """Top-level names that a module imports, at its top or anywhere inside, with the line of the first import."""
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        elif isinstance(node, ast.Call) and "import_module" in ast.dump(node.func) and node.args:
            target = node.args[0]
            names = [target.value] if isinstance(target, ast.Constant) and isinstance(target.value, str) else []
        for name in names:
            found.setdefault(name.split(".")[0], getattr(node, "lineno", 0))
    return found


def faults(room: str, path: str, source: str) -> list[str]:
    """What in `source`, a module of `room`, runs against the arrows."""
    allowed = ROOMS[room] | {room}
    return [
        f"{path}:{line} imports {name}, but {room}/ may import only {sorted(allowed - {room}) or 'nothing of ours'}"
        for name, line in imported(source).items()
        if name in OURS and name not in allowed
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_imports_follow_the_arrows(room):
    paths = sorted((ROOT / room).rglob("*.py"))
    if room != "bench":
        assert paths, f"{room}/ has no modules: is this the repository's root?"
    found = [
        fault for path in paths for fault in faults(room, str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("learner", "from actors.pool import PoolClient"),
        ("learner", "def late():\n    import envs.base as base\n    return base"),
        ("envs", "import json, buffer"),
        ("buffer", "if TYPE_CHECKING:\n    from learner import train"),
        ("archer", "from tests.envs import helpers"),
        ("actors", "import importlib\nimportlib.import_module('bench.rollout')"),
    ],
)
def test_a_wrong_import_is_caught(room, source):
    assert len(faults(room, "module.py", source)) == 1


def test_right_imports_are_let_through():
    assert faults("actors", "module.py", "import envs\nfrom buffer.schema import Episode\nfrom . import pool") == []
    assert faults("envs", "module.py", "from .base import TextEnv\nimport envs.errors\nimport random") == []


def test_relative_imports_stay_inside_their_room():
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            depth = len(path.relative_to(ROOT).parts) - 1
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom):
                    assert node.level <= depth, f"{path.relative_to(ROOT)}:{node.lineno} reaches out of its room"
