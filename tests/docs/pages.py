"""Read the pages of docs/: their code blocks, their tables, and the texts that the product can print."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [
        *DOCS.rglob("*.md"),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "deploy/README.md")),
    ]
)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a language on a page."""
    return [code for found, code in _BLOCK.findall(page.read_text(encoding="utf-8")) if found == language]


def commands(page: Path) -> Iterator[list[str]]:
    """Return the arguments of each `archer` command in the shell blocks of a page."""
    for code in blocks(page, "bash"):
        for line in code.replace("\\\n", " ").splitlines():
            found = re.match(r"(?:ray job submit .*?-- )?(?:\S*/)?archer (.*)", line.strip())
            if found:
                yield shlex.split(found[1], comments=True)


def first_cells(text: str) -> Iterator[str]:
    """Return the first cell of each row of the tables."""
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith(("| ---", "| you see", "| exit status")):
            yield line.split(" | ")[0].removeprefix("| ")


@cache
def printed() -> str:
    """Return the constant parts of every string in the five rooms; a value in a string becomes "\\0"."""
    found = []
    for room in ("actors", "archer", "buffer", "envs", "learner"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
                elif isinstance(node, ast.ClassDef):
                    found.append(node.name)
    return "\n".join(found)
