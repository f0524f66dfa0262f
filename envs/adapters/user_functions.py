"""Functions of the user's own, by `module:function`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from envs.errors import EnvArgumentError, nearest


def load_function(env_id: str, argument: str, target: str) -> Callable[..., Any]:
    """The function that `module:function` names. Raises EnvArgumentError that says which argument of what is wrong."""
    module_name, _, name = target.partition(":")
    if not module_name or not name:
        raise EnvArgumentError(f"{env_id}: {argument} is {target!r}, must be of the form module:function")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise EnvArgumentError(
            f"{env_id}: {argument} is {target!r}, but there is no module {error.name!r}: install it or set PYTHONPATH"
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        known = [known for known, value in vars(module).items() if callable(value) and not known.startswith("_")]
        raise EnvArgumentError(
            f"{env_id}: {argument} is {target!r}, but there is no such function: {nearest(name, known)}"
        )
    return found
