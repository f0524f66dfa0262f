"""Refuse to start where a folder of the user's own hides an installed room.

The rooms are top-level packages with short names. Two things can go wrong: this process imports the wrong one
(a folder earlier on its path), or this process is right and its children are not: `python -m` and Ray's worker
processes put the working directory first on their path, which the console script does not.
"""

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from archer.errors import ShadowError

ROOMS = ("actors", "archer", "buffer", "envs", "learner")


def check_shadowing(directory: Path | None = None) -> None:
    """Raise ShadowError, naming both paths, where `directory` (default: the working one) or the path hides a room."""
    home = Path(__file__).resolve().parent.parent
    here = (directory or Path.cwd()).resolve()
    importlib.invalidate_caches()
    for room in ROOMS:
        ours = home / room
        for found in (_location(importlib.util.find_spec(room)), _from_directory(room, here)):
            if found is not None and found != ours:
                raise ShadowError(
                    f"{found} hides ArCHer's own package {room!r} at {ours}: processes started from here would "
                    f"import the wrong one. Rename {found.name!r}, or start archer from another directory."
                )


def _from_directory(room: str, here: Path) -> Path | None:
    """What a process with `here` first on its path would import. Asking Python's own finder also gets the case right
    in which a folder without `__init__.py` wins, as it does against a package behind an editable install's hook."""
    return _location(PathFinder.find_spec(room, [str(here), *sys.path]))


def _location(spec: ModuleSpec | None) -> Path | None:
    """Folder (or file) behind a spec; the first one of a namespace."""
    if spec is None:
        return None
    if spec.origin is not None:
        origin = Path(spec.origin).resolve()
        return origin.parent if origin.name == "__init__.py" else origin
    return next((Path(place).resolve() for place in spec.submodule_search_locations or ()), None)
