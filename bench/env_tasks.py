"""The registered environments as the programs of bench/ take them: which can be made here, and with what arguments."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

import envs
from archer.config.overrides import parse_override
from bench.common import say

DEFAULTS: dict[str, dict[str, Any]] = {"gymnasium": {"gym_id": "FrozenLake-v1"}}
"""What an environment that takes any of a kind is measured on, unless --set says otherwise."""
SERVED = ("openenv", "webshop_http")
"""Clients of a server: measured where --set gives its address."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--envs", nargs="+", metavar="ID", help="these alone; by default all that are installed")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="ID.NAME=VALUE",
        help="an argument of an environment, such as detective.story=PATH; may be given again",
    )


def tasks(arguments: argparse.Namespace) -> Iterator[tuple[envs.EnvSpec, dict[str, Any]]]:
    """Each environment that can be played here, with its arguments; of the others the reason goes to standard error."""
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
    """Arguments for a table; of a path its last part."""
    return ", ".join(f"{name}={str(value).rsplit('/', 1)[-1]}" for name, value in kwargs.items())


def _missing(spec: envs.EnvSpec, kwargs: Mapping[str, Any]) -> str | None:
    """Why an environment can't be made, or None."""
    if spec.id in SERVED and not kwargs:
        return "a client of a server; give its address by --set"
    if spec.extra is not None and envs.missing_modules(spec.extra):
        return f"the extra {spec.extra} isn't installed"
    try:
        envs.make(spec.id, **kwargs).close()
    except envs.EnvError as error:
        return str(error)
    return None
