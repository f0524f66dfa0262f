"""The registry: makes environments from an id of this project or from the user's own `module:Class`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

from envs.base import EnvSpec, TextEnv
from envs.builtin import ENTRIES, Entry, Factory
from envs.errors import EnvArgumentError, EnvError, EnvFailedError, UnknownEnvError, nearest
from envs.extras import require_extra
from envs.hosting.child_process import ProcessEnv
from envs.time_limit import TimeLimit
from envs.user_code import import_callable

_entries: dict[str, Entry] = dict(ENTRIES)


def register(spec: EnvSpec, make: str | Factory, *, demonstrator: str | Factory | None = None) -> None:
    """Add an environment under `spec.id`. Raises EnvArgumentError if the id is taken or contains a colon."""
    if spec.id in _entries:
        raise EnvArgumentError(f"environment id {spec.id!r} is already registered: choose another id")
    if ":" in spec.id:
        raise EnvArgumentError(f"environment id {spec.id!r} contains a colon, which is reserved for module:Class")
    _entries[spec.id] = Entry(spec, make, demonstrator)


def specs() -> list[EnvSpec]:
    """Return the specs of all registered environments, ordered by id."""
    return [_entries[env_id].spec for env_id in sorted(_entries)]


def spec(env_id: str) -> EnvSpec:
    """Return the spec of a registered id or of `module:Class`. A class without a class-level spec is made without
    arguments to read it.
    """
    if env_id in _entries:
        return _entries[env_id].spec
    declared = getattr(factory(env_id), "spec", None)
    return declared if isinstance(declared, EnvSpec) else make(env_id).spec


def check(env_id: str, **kwargs: Any) -> None:
    """Raise the error that `make` would raise for an unknown id, a missing extra or a wrong argument, without making
    anything.
    """
    _check_arguments(env_id, factory(env_id), {k: v for k, v in kwargs.items() if k != "max_turns"})


def make(env_id: str, *, max_turns: int | None = None, **kwargs: Any) -> TimeLimit:
    """Make an environment and wrap it in the time limit.

    env_id: a registered id, or `module:Class`.
    max_turns: replaces the time limit of the spec.
    kwargs: arguments of the environment. An unknown one raises EnvArgumentError that names the closest known one.

    An environment whose spec has isolation `process` runs in a child process, which starts at the first reset. A class
    may define a static `check_arguments(**kwargs)`, which is called first and raises for arguments that are wrong.
    """
    maker = factory(env_id)
    _check_arguments(env_id, maker, kwargs)
    declared = _entries[env_id].spec if env_id in _entries else getattr(maker, "spec", None)
    env: Any
    if isinstance(declared, EnvSpec) and declared.isolation == "process":
        env = ProcessEnv(partial(maker, **kwargs), declared)
    else:
        try:
            env = maker(**kwargs)
        except EnvError:
            raise
        except (Exception, SystemExit) as error:
            raise EnvFailedError(f"environment {env_id!r} cannot be made: {type(error).__name__}: {error}") from error
    if not isinstance(env, TextEnv) or not isinstance(env.spec, EnvSpec):
        raise EnvArgumentError(
            f"{env_id} made a {type(env).__name__}, not a TextEnv: it needs spec (an EnvSpec), reset, step, close"
        )
    return TimeLimit(env, max_turns)


def tools(env_id: str, kwargs: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Return the JSON schemas of the tools of an environment.

    They are those of its spec. A class whose tools depend on its arguments has a static `declared_tools(**kwargs)`.
    """
    maker = factory(env_id)
    ask = getattr(maker, "declared_tools", None)
    if ask is not None:
        return tuple(ask(**kwargs))
    declared = _entries[env_id].spec if env_id in _entries else getattr(maker, "spec", None)
    if isinstance(declared, EnvSpec):
        return declared.tools
    env = make(env_id, **kwargs)
    env.close()
    return env.spec.tools


def native_calls(env_id: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an environment for a policy that writes native tool calls.

    An environment that takes an argument `calls` gets "native", unless `kwargs` sets it.
    """
    takes = inspect.signature(factory(env_id)).parameters
    return {"calls": "native", **kwargs} if "calls" in takes else dict(kwargs)


def demonstrator_factory(env_id: str) -> Factory:
    """Return the factory of an environment's scripted demonstrator; it takes `skill` and the arguments of the
    environment. The class of `module:Class` names its own as the attribute `demonstrator`.
    """
    entry = _entries.get(env_id)
    if entry is None and ":" not in env_id:
        raise UnknownEnvError(f"unknown environment {env_id!r}: {nearest(env_id, _entries)}")
    found = entry.demonstrator if entry is not None else getattr(factory(env_id), "demonstrator", None)
    if found is None:
        able = [known for known, e in _entries.items() if e.demonstrator is not None]
        raise EnvError(
            f"{env_id} has no scripted demonstrator; a class of your own names one as its attribute `demonstrator`, "
            f"and these environments have one: {', '.join(sorted(able))}"
        )
    return _resolve(env_id, found)


def factory(env_id: str) -> Factory:
    """Return the class or function that makes an environment. Raises UnknownEnvError, MissingExtraError, EnvError."""
    if env_id in _entries:
        require_extra(_entries[env_id].spec.extra, env_id)
        return _resolve(env_id, _entries[env_id].make)
    if ":" in env_id:
        return _resolve(env_id, env_id)
    raise UnknownEnvError(f"unknown environment {env_id!r}: {nearest(env_id, _entries)} Or give module:Class.")


def _resolve(env_id: str, target: str | Factory) -> Factory:
    if not isinstance(target, str):
        return target
    return import_callable(target, where=f"environment {env_id!r}", error_type=UnknownEnvError)


def _check_arguments(env_id: str, maker: Factory, kwargs: Mapping[str, Any]) -> None:
    parameters = inspect.signature(maker).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        _check_names(env_id, parameters, kwargs)
    # Called here because the environment itself may be made later, in a child process.
    refuse = getattr(maker, "check_arguments", None)
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
