"""Imports the user's own classes and functions by `module:name`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from envs.errors import EnvArgumentError, EnvError, nearest


def import_callable(target: str, *, where: str, error_type: type[EnvError]) -> Callable[..., Any]:
    """Return the callable that `module:name` names.

    where: begins the message of an error.
    error_type: error for a malformed target, a missing module or a missing name. A module that exists but fails to
        import another one raises EnvError instead.
    """
    module_name, _, name = target.partition(":")
    if not module_name or module_name.startswith(".") or not name:
        raise error_type(f"{where}: {target!r} is not of the form module:name")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(error.name + ".")):
            raise EnvError(f"{where}: module {module_name!r} cannot be imported: {error}") from error
        raise error_type(f"{where}: no module named {error.name!r}: install it or set PYTHONPATH") from error
    except (Exception, SystemExit) as error:  # the user's module may do anything
        found_at = f"{type(error).__name__}: {error}"
        raise EnvError(f"{where}: module {module_name!r} cannot be imported: {found_at}") from error
    found = getattr(module, name, None)
    if not callable(found):
        known = [known for known, value in vars(module).items() if callable(value) and not known.startswith("_")]
        raise error_type(f"{where}: module {module_name!r} has no class or function {name!r}: {nearest(name, known)}")
    return found


def load_function(env_id: str, argument: str, target: str | None) -> Callable[..., Any] | None:
    """Return the function that an argument of an environment names, or None for None. Raises EnvArgumentError."""
    if target is None:
        return None
    return import_callable(target, where=f"{env_id}: {argument}", error_type=EnvArgumentError)
