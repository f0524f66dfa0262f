"""The registered environments that can be made here, with their arguments, for the programs of bench/."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

import envs
from archer.config.overrides import parse_override
from bench.common import say

DEFAULTS: dict[str, dict[str, Any]] = {"gymnasium": {"gym_id": "FrozenLake-v1"}}
"""Arguments of environments that need some, unless --set gives others."""
SERVED = ("openenv", "webshop_http")
"""Clients of a server, which are measured only if --set gives its address."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--envs", nargs="+", metavar="ID", help="these environments only; by default all that are installed"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="ID.NAME=VALUE",
        help="an argument of an environment, such as detective.story=PATH; may be repeated",
    )


def tasks(arguments: argparse.Namespace) -> Iterator[tuple[envs.EnvSpec, dict[str, Any]]]:
    """Yield each environment that can be made, with its arguments; report the reason for every other one on standard
    error.
    """
    given: dict[str, dict[str, Any]] = {}
    for text in arguments.set:
        key, value = parse_override(text)
        env_id, _, name = key.partition(".")
        given.setdefault(env_id, {})[name] = value
    for spec in envs.specs():
        if arguments.envs and spec.id not in arguments.envs:
            continue
        kwargs = DEFAULTS.get(spec.id, {}) | given.get(spec.id, {})
        reason = _missing(spec, kwargs)
        if reason is None:
            yield spec, kwargs
        else:
            say(f"{spec.id}: left out: {reason}")


def shown(kwargs: Mapping[str, Any]) -> str:
    """Return arguments as text for a table, paths by their last part."""
    return ", ".join(f"{name}={str(value).rsplit('/', 1)[-1]}" for name, value in kwargs.items())


def _missing(spec: envs.EnvSpec, kwargs: Mapping[str, Any]) -> str | None:
    """Return why an environment cannot be made, or None."""
    if spec.id in SERVED and not kwargs:
        return "a client of a server: give its address with --set"
    if spec.extra is not None and envs.missing_modules(spec.extra):
        return f"the extra {spec.extra} is not installed"
    try:
        envs.make(spec.id, **kwargs).close()
    except envs.EnvError as error:
        return str(error)
    return None
