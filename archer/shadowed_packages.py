"""Refuse to start if another module hides an installed room.

The rooms are top-level packages with short names. If another package of that name is earlier on the path, this process
imports it. Child processes may do so even if this process does not: `python -m` and Ray's workers put the working
directory first on their path, which the console script does not.
"""

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from archer.errors import ShadowError

ROOMS = ("actors", "archer", "buffer", "envs", "learner")


def check_shadowing(directory: Path | None = None) -> None:
    """Raise ShadowError, which names both paths, if `directory` (default: the working one) or the path hides a room."""
    home = Path(__file__).resolve().parent.parent
    here = str((directory or Path.cwd()).resolve())
    importlib.invalidate_caches()
    for room in ROOMS:
        ours = home / room
        # The second spec is what a child process imports. Only Python's own finder knows whether a folder without
        # `__init__.py` wins, which depends on how the rooms are installed.
        for spec in (importlib.util.find_spec(room), PathFinder.find_spec(room, [here, *sys.path])):
            found = _location(spec)
            if found is not None and found != ours:
                raise ShadowError(
                    f"{found} hides ArCHer's own package {room!r} at {ours}: processes started from here would "
                    f"import the wrong one. Rename {found.name!r}, or start archer from another directory."
                )


def _location(spec: ModuleSpec | None) -> Path | None:
    """Return the folder or file of a spec; for a namespace package, its first folder."""
    if spec is None:
        return None
    if spec.origin is not None:
        origin = Path(spec.origin).resolve()
        return origin.parent if origin.name == "__init__.py" else origin
    return next((Path(place).resolve() for place in spec.submodule_search_locations or ()), None)
