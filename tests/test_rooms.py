"""Check the borders of the rooms: which room imports which, and that no imports form a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

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
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class Import(NamedTuple):
    """One imported name, dotted from the room on: `buffer.log.frames`, `buffer.errors.ReplayError`."""

    name: str
    line: int
    late: bool
    """Whether it is inside a function or under TYPE_CHECKING, so that importing the module does not execute it."""


def read_imports(module: str, is_package: bool, source: str) -> list[Import]:
    """Return every import of a module; `import_module("...")` with a constant name counts as a late import."""
    package = module if is_package else module.rpartition(".")[0]
    return list(_imports_in(ast.parse(source), package.split("."), late=False))


def _imports_in(node: ast.AST, package: list[str], *, late: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, node.lineno, late) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = package[: len(package) - node.level + 1] if node.level else []
        assert not node.level or base, f"line {node.lineno}: a relative import leaves its room"
        base = [*base, *(node.module or "").split(".")] if node.module else base
        yield from (Import(".".join([*base, alias.name]), node.lineno, late) for alias in node.names)
    elif isinstance(node, ast.Call) and _last_name(node.func) == "import_module" and node.args:
        target = node.args[0]
        if isinstance(target, ast.Constant) and isinstance(target.value, str):
            yield Import(target.value, node.lineno, True)
    skipped: set[int] = set()
    if isinstance(node, ast.If) and _last_name(node.test) == "TYPE_CHECKING":
        skipped = set(map(id, node.body))
    for child in ast.iter_child_nodes(node):
        yield from _imports_in(child, package, late=late or isinstance(node, FUNCTIONS) or id(child) in skipped)


def _last_name(node: ast.AST) -> str | None:
    """Return `name` of an expression `name` or `something.name`."""
    return getattr(node, "attr", None) or getattr(node, "id", None)


@cache
def read_modules(root: Path, rooms: frozenset[str]) -> dict[str, list[Import]]:
    """Return the imports of each module below `rooms`, by its dotted name."""
    modules = {}
    for room in sorted(rooms):
        for path in sorted((root / room).rglob("*.py")):
            parts = list(path.relative_to(root).with_suffix("").parts)
            is_package = parts[-1] == "__init__"
            module = ".".join(parts[:-1] if is_package else parts)
            modules[module] = read_imports(module, is_package, path.read_text(encoding="utf-8"))
    return modules


def wrong_arrows(room: str, module: str, imports: list[Import]) -> list[str]:
    """Return a sentence for each import by which `module` of `room` breaks the arrows."""
    allowed = ROOMS[room] | {room}
    return [
        f"{module}:{line} imports {name}, but {room}/ may import only {sorted(allowed - {room}) or 'nothing of ours'}"
        for name, line, _ in imports
        if (top := name.split(".")[0]) in OURS and top not in allowed
    ]


def _inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def edges(modules: dict[str, list[Import]], *, late: bool) -> set[tuple[str, str]]:
    """Return (importer, imported) pairs of modules.

    late=True: every import, as written. late=False: what Python executes when it imports the module. That includes the
    `__init__.py` of every package above an imported module, except those above the importer, which are already running.
    """
    found = set()
    for module, imports in modules.items():
        for name, _, is_late in imports:
            if is_late and not late:
                continue
            parts = name.split(".")
            above = [part for n in range(1, len(parts) + 1) if (part := ".".join(parts[:n])) in modules]
            found.update((module, target) for target in above[-1:] if target != module)
            if not late:
                found.update((module, package) for package in above[:-1] if not _inside(module, package))
    return found


def circle(pairs: set[tuple[str, str]]) -> list[str]:
    """Return the modules of one circle, the first one repeated at the end, or an empty list."""
    graph: dict[str, set[str]] = {}
    for importer, imported in sorted(pairs):
        graph.setdefault(importer, set()).add(imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


@pytest.mark.parametrize("room", ROOMS)
def test_imports_follow_the_arrows(room: str) -> None:
    modules = {name: imports for name, imports in read_modules(ROOT, frozenset(ROOMS)).items() if _inside(name, room)}
    assert modules, f"{room}/ has no modules: is this the repository's root?"
    found = [sentence for module, imports in modules.items() for sentence in wrong_arrows(room, module, imports)]
    assert not found, "\n".join(found)


def test_no_circle_when_python_imports_a_module() -> None:
    found = circle(edges(read_modules(ROOT, frozenset(ROOMS)), late=False))
    assert not found, "imported in a circle: " + " -> ".join(found)


def test_no_circle_hides_in_a_function_or_behind_type_checking() -> None:
    found = circle(edges(read_modules(ROOT, frozenset(ROOMS)), late=True))
    assert not found, "imported in a circle: " + " -> ".join(found)


def test_modules_import_from_the_module_that_defines_a_name() -> None:
    """A front door that exports lazily imports the module behind a name at that moment, which hides a circle."""
    modules = read_modules(ROOT, frozenset(ROOMS))
    found = [
        f"{module}:{line} imports {name} by the front door of {room}/"
        for module, imports in modules.items()
        for name, line, _ in imports
        for room in ("actors", "archer", "buffer", "learner")
        if name.startswith(f"{room}.") and name.count(".") == 1 and name not in modules
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
def test_a_wrong_import_is_caught(room: str, source: str) -> None:
    assert len(wrong_arrows(room, f"{room}.module", read_imports(f"{room}.module", False, source))) == 1


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("actors", "import envs\nfrom buffer.errors import ReplayError\nfrom . import pool"),
        ("envs", "from .base import TextEnv\nimport envs.errors\nimport random"),
    ],
)
def test_right_imports_are_let_through(room: str, source: str) -> None:
    assert wrong_arrows(room, f"{room}.module", read_imports(f"{room}.module", False, source)) == []


def test_a_relative_import_out_of_a_room_is_caught() -> None:
    with pytest.raises(AssertionError, match="leaves its room"):
        read_imports("envs.maze", False, "from .. import buffer")


HOUSE = {"envs/__init__.py": "", "envs/games/__init__.py": "", "envs/games/chess.py": "", "envs/tools.py": ""}


@pytest.mark.parametrize(
    ("files", "executed", "written"),
    [
        ({"envs/tools.py": "from envs.games.chess import Chess", "envs/games/chess.py": "import envs.tools"}, 2, 2),
        # chess does not import games, but tools executes games/__init__.py on its way to chess.
        ({"envs/games/__init__.py": "from envs import tools", "envs/tools.py": "import envs.games.chess"}, 2, 0),
        ({"envs/games/__init__.py": "from .chess import Chess", "envs/games/chess.py": "from envs import games"}, 2, 2),
        ({"envs/games/__init__.py": "from .chess import Chess", "envs/games/chess.py": "from envs import tools"}, 0, 0),
        ({"envs/tools.py": "import envs.games.chess", "envs/games/chess.py": "def f():\n import envs.tools"}, 0, 2),
        (
            {
                "envs/tools.py": "if TYPE_CHECKING:\n import envs.games.chess\nelse:\n import json",
                "envs/games/chess.py": "try:\n import envs.tools\nexcept ImportError:\n pass",
            },
            0,
            2,
        ),
    ],
)
def test_circles_are_found(tmp_path: Path, files: dict[str, str], executed: int, written: int) -> None:
    """`executed` and `written` are the lengths of the circles at import time and over all imports; 0 means none."""
    for name, source in (HOUSE | files).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    modules = read_modules(tmp_path, frozenset({"envs"}))
    assert max(len(circle(edges(modules, late=False))) - 1, 0) == executed
    assert max(len(circle(edges(modules, late=True))) - 1, 0) == written
