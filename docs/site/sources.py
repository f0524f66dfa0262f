"""Copy the pages of the site into one folder: those of docs/, those elsewhere in the project, and the API reference.

Links between pages are written for readers of the project's files. On the site, a link to a module of a room leads to
the API reference of the room, and a link to any other file that is no page becomes its text.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from api_pages import ROOMS

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(__file__).resolve().parent
ELSEWHERE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "bench/README.md": "benchmarks.md",
    "deploy/README.md": "deploy.md",
    "README.md": "index.md",
}
"""Pages that are not in docs/: file of the project to page of the site. The first page of the site is docs/index.md."""
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:|#)([^)\s#]*)(#[^)\s]*)?\)")
_FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)


class LinkError(Exception):
    """A page links to a file that does not exist."""


def copy_pages(to: Path) -> None:
    """Write every page and picture below `to`. Raises LinkError."""
    pages = {f"docs/{path.relative_to(ROOT / 'docs').as_posix()}": path for path in _markdown(ROOT / "docs")}
    names = ELSEWHERE | {file: file.removeprefix("docs/") for file in pages}
    shutil.copytree(ROOT / "docs" / "images", to / "images")
    for file, name in names.items():
        if file != "README.md":
            target = to / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(with_links(file, (ROOT / file).read_text(encoding="utf-8"), names), encoding="utf-8")


def with_links(file: str, text: str, names: dict[str, str]) -> str:
    """Return the text of the page `file`, with links as the site has them.

    `names` is the page of the site for each file of the project that is one. Code is left as it is.
    """

    def moved(found: re.Match[str]) -> str:
        picture, label, target, anchor = found.groups()
        linked = os.path.normpath(os.path.join(os.path.dirname(file), target))
        if not (ROOT / linked).exists():
            raise LinkError(f"{file} links to {target}, which does not exist")
        room = linked.partition("/")[0]
        name = linked.removeprefix("docs/") if picture else names.get(linked) or (room in ROOMS and f"api/{room}.md")
        if name:
            path = os.path.relpath(name, os.path.dirname(names[file]) or ".")
            return f"{picture}[{label}]({path}{anchor or ''})"
        return label if label.startswith("`") else f"`{label}`"

    parts, end = [], 0
    for code in _FENCE.finditer(text):
        parts += [_LINK.sub(moved, text[end : code.start()]), code.group()]
        end = code.end()
    return "".join([*parts, _LINK.sub(moved, text[end:])])


def _markdown(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.md") if SITE not in path.parents)
