"""Optional extras: the packages that some environments wrap, and the sentence for who lacks one.

An environment whose spec names an `extra` needs the modules listed here. The registry asks `need` before it makes one,
so such an environment may import its package at the top of its module.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from envs.errors import MissingExtraError

EXTRA_MODULES: Mapping[str, tuple[str, ...]] = {
    "gymnasium": ("gymnasium", "farama_notifications"),
    "jericho": ("jericho",),
    "miniwob": ("browsergym", "playwright", "miniwob", "bs4", "lxml"),
    "openenv": ("openenv", "fastmcp", "tomli", "tomli_w"),
    "textarena": ("textarena", "nltk", "chess"),
    "textworld": (
        "textworld",
        "jericho",
        "tatsu",
        "hashids",
        "mementos",
        "more_itertools",
        "termcolor",
        "prompt_toolkit",
    ),
}
"""Extra of pyproject.toml -> the top-level modules that it brings."""

LOCK = "requirements-envs.lock"


def missing(extra: str) -> list[str]:
    """The modules of an extra that aren't installed. Nothing is known to be missing of an extra of someone else's."""
    return [module for module in EXTRA_MODULES.get(extra, ()) if find_spec(module) is None]


def need(extra: str | None, env_id: str) -> None:
    """Raise MissingExtraError where an environment's extra isn't installed, with the command that installs it."""
    lacking = [] if extra is None else missing(extra)
    if lacking:
        raise MissingExtraError(
            f"{env_id} needs the optional extra {extra!r}, of which {', '.join(lacking)} can't be found: run "
            f"`make install`, or `pip install --no-deps --no-build-isolation -r {LOCK}` in a checkout of the project"
        )
