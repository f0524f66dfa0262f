"""Optional extras: which modules each extra installs, and the error for a missing one.

The registry calls `require_extra` before it imports an environment, so the module of an environment may import the
packages of its extra at the top.
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
"""Extra of pyproject.toml -> the top-level modules that it installs."""

LOCK = "requirements-envs.lock"


def missing_modules(extra: str) -> list[str]:
    """Return the modules of an extra that are not installed; [] for an extra that this project does not define."""
    return [module for module in EXTRA_MODULES.get(extra, ()) if find_spec(module) is None]


def require_extra(extra: str | None, env_id: str) -> None:
    """Raise MissingExtraError, with the install command, if the extra of an environment is not installed."""
    lacking = [] if extra is None else missing_modules(extra)
    if lacking:
        raise MissingExtraError(
            f"{env_id} needs the optional extra {extra!r}, but {', '.join(lacking)} is not installed: run "
            f"`make install`, or `pip install --no-deps --no-build-isolation -r {LOCK}` in a checkout of the project"
        )
