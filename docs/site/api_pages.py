"""Return the pages of the API reference: for each room its front door and its public names."""

from __future__ import annotations

from importlib import import_module

ROOMS = {
    "envs": "Environments",
    "buffer": "Replay",
    "actors": "Rollouts",
    "learner": "Learner",
    "archer": "Runs",
}
"""The rooms, and the title of each one's page."""


def api_pages() -> dict[str, str]:
    """Return path to text of the pages, with directives in place of the docstrings."""
    return {f"api/{room}.md": _page(room, title) for room, title in ROOMS.items()}


def _page(room: str, title: str) -> str:
    door = import_module(room)
    parts = [
        f"# {title}: `{room}`\n\n::: {room}\n    options:\n      members: false\n      show_root_heading: false\n"
        "      show_root_toc_entry: false\n"
    ]
    for name, module in sorted(door._MODULES.items(), key=lambda pair: _rank(pair[0])):
        parts.append(
            f"\n::: {module}.{name}\n    options:\n      heading: {room}.{name}\n      toc_label: {name}\n"
            f"{_members(name)}"
        )
    return "".join(parts)


def _rank(name: str) -> int:
    """Return the place of a name's kind: classes and functions, then errors, then constants."""
    return 2 if name.isupper() else int(name.endswith(("Error", "Timeout")))


def _members(name: str) -> str:
    """Hide the fields of a configuration model, which the configuration reference describes."""
    return "      members: false\n      inherited_members: false\n" if name.endswith("Config") else ""
