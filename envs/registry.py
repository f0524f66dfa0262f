"""Environments by name: the ids of this project, and `module:Class` for anyone else's."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from envs.base import EnvSpec, TextEnv
from envs.errors import EnvArgumentError, EnvError, UnknownEnvError, nearest
from envs.extras import need
from envs.hosting.child_process import ProcessEnv
from envs.wrappers import TimeLimit

Factory = Callable[..., Any]


@dataclass(frozen=True)
class Entry:
    """One registered environment: how to make it and, where there is one, its scripted demonstrator.

    Both are a callable or a `module:Name` that is imported at first use.
    """

    spec: EnvSpec
    make: str | Factory
    demonstrator: str | Factory | None = None


_entries: dict[str, Entry] = {}


def register(spec: EnvSpec, make: str | Factory, *, demonstrator: str | Factory | None = None) -> None:
    """Add an environment under `spec.id`. An id that is taken raises EnvArgumentError."""
    if spec.id in _entries:
        raise EnvArgumentError(f"environment id {spec.id!r} is registered already: choose another id")
    if ":" in spec.id:
        raise EnvArgumentError(f"environment id {spec.id!r} holds a colon, which stands for module:Class")
    _entries[spec.id] = Entry(spec, make, demonstrator)


def specs() -> list[EnvSpec]:
    """Specs of all registered environments, by id."""
    return [_entries[env_id].spec for env_id in sorted(_entries)]


def spec(env_id: str) -> EnvSpec:
    """The spec of a registered environment, or of `module:Class` (made, with no arguments, if it has no class spec)."""
    if env_id in _entries:
        return _entries[env_id].spec
    factory = _factory(env_id)
    declared = getattr(factory, "spec", None)
    return declared if isinstance(declared, EnvSpec) else make(env_id).spec


def check(env_id: str, **kwargs: Any) -> None:
    """Raise what `make` would raise for an unknown id, a missing extra or a wrong argument, without making anything."""
    _check_arguments(env_id, _factory(env_id), {k: v for k, v in kwargs.items() if k != "max_turns"})


def make(env_id: str, *, max_turns: int | None = None, **kwargs: Any) -> TimeLimit:
    """Make an environment, under the time limit.

    env_id: a registered id, or `module:Class`.
    max_turns: a time limit other than the spec's.
    kwargs: the environment's own arguments; an unknown one raises EnvArgumentError that names the nearest.
    An environment whose spec says `process` lives in a child process, which its first reset starts. A class may have a
    static `check_arguments(**kwargs)` that raises for what can be told of them before anything is made.
    """
    factory = _factory(env_id)
    _check_arguments(env_id, factory, kwargs)
    declared = _entries[env_id].spec if env_id in _entries else getattr(factory, "spec", None)
    env: Any
    if isinstance(declared, EnvSpec) and declared.isolation == "process":
        env = ProcessEnv(partial(factory, **kwargs), declared)
    else:
        env = factory(**kwargs)
    if not isinstance(env, TextEnv) or not isinstance(env.spec, EnvSpec):
        raise EnvArgumentError(
            f"{env_id} made a {type(env).__name__}, which is no TextEnv: it needs spec (an EnvSpec), reset, step, close"
        )
    return TimeLimit(env, max_turns)


def demonstrator_factory(env_id: str) -> Factory:
    """What makes the scripted demonstrator of an environment: called with `skill=`, the environment's `kwargs=`."""
    entry = _entries.get(env_id)
    if entry is None and ":" not in env_id:
        raise UnknownEnvError(f"unknown environment {env_id!r}: {nearest(env_id, _entries)}")
    if entry is None or entry.demonstrator is None:
        able = [known for known, e in _entries.items() if e.demonstrator is not None]
        raise EnvError(f"{env_id} has no scripted demonstrator; these have: {', '.join(sorted(able))}")
    return _resolve(env_id, entry.demonstrator)


def _factory(env_id: str) -> Factory:
    if env_id in _entries:
        need(_entries[env_id].spec.extra, env_id)
        return _resolve(env_id, _entries[env_id].make)
    if ":" in env_id:
        return _resolve(env_id, env_id)
    raise UnknownEnvError(f"unknown environment {env_id!r}: {nearest(env_id, _entries)} Your own goes by module:Class.")


def _resolve(env_id: str, target: str | Factory) -> Factory:
    if not isinstance(target, str):
        return target
    module_name, _, attribute = target.partition(":")
    if not module_name or module_name.startswith(".") or not attribute:
        raise UnknownEnvError(f"environment {env_id!r}: {target!r} is not of the form module:Class")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Only the module asked for: one that it fails to import in turn is its own fault, with its own traceback.
        if error.name is None or not (module_name == error.name or module_name.startswith(error.name + ".")):
            raise EnvError(f"environment {env_id!r}: module {module_name!r} can't be imported: {error}") from error
        raise UnknownEnvError(
            f"environment {env_id!r}: no module named {error.name!r}: install it or set PYTHONPATH"
        ) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise UnknownEnvError(
            f"environment {env_id!r}: module {module_name!r} has no class {attribute!r}: {nearest(attribute, names)}"
        )
    return found


def _check_arguments(env_id: str, factory: Factory, kwargs: Mapping[str, Any]) -> None:
    parameters = inspect.signature(factory).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        _check_names(env_id, parameters, kwargs)
    # What an environment can tell of its arguments before it is made, in a child process perhaps.
    refuse = getattr(factory, "check_arguments", None)
    if refuse is not None:
        refuse(**kwargs)


def _check_names(env_id: str, parameters: Mapping[str, inspect.Parameter], kwargs: Mapping[str, Any]) -> None:
    known = [n for n, p in parameters.items() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for name in kwargs:
        if name not in known:
            raise EnvArgumentError(f"{env_id} takes no argument {name!r}: {nearest(name, [*known, 'max_turns'])}")
    missing = [n for n in known if parameters[n].default is inspect.Parameter.empty and n not in kwargs]
    if missing:
        raise EnvArgumentError(f"{env_id} needs the argument {', '.join(map(repr, missing))}")
