"""Checks of arguments that several environments take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from envs.errors import EnvArgumentError, nearest

Name = TypeVar("Name", bound=str)


def choose_several(env_id: str, argument: str, chosen: Sequence[Any] | None, known: Sequence[Name]) -> tuple[Name, ...]:
    """Return `chosen` in the order of `known`; all of `known` for None. Raises EnvArgumentError for other values."""
    if chosen is None:
        return tuple(known)
    if isinstance(chosen, str):
        raise EnvArgumentError(f"{env_id}: {argument} is the string {chosen!r}: give a list")
    for name in chosen:
        if name not in known:
            raise EnvArgumentError(f"{env_id}: {argument} has no {name!r}: {nearest(str(name), known)}")
    if not chosen:
        raise EnvArgumentError(f"{env_id}: {argument} is empty: omit it to use all")
    return tuple(name for name in known if name in chosen)


def check_one_of(env_id: str, argument: str, value: object, known: Sequence[object]) -> None:
    """Raise EnvArgumentError if `value` is not in `known`."""
    if value not in known:
        raise EnvArgumentError(f"{env_id}: {argument} is {value!r}, must be one of {tuple(known)}")


def check_count(env_id: str, argument: str, count: int | None) -> None:
    """Raise EnvArgumentError if `count`, a number of distinct cases or None, is below 1."""
    if count is not None and count < 1:
        raise EnvArgumentError(f"{env_id}: {argument} is {count}, must be at least 1, or null for one per seed")


def check_distinct(env_id: str, argument: str, values: Sequence[str]) -> None:
    """Raise EnvArgumentError if `values` is a string, is empty, or holds a value twice."""
    if isinstance(values, str):
        raise EnvArgumentError(f"{env_id}: {argument} is the string {values!r}: give a list")
    if not values or len(set(values)) != len(values):
        raise EnvArgumentError(f"{env_id}: {argument} must hold at least one value, and each value once")


def refuse_options(env_id: str, options: Mapping[str, Any] | None) -> None:
    """Raise EnvArgumentError for any reset option. For environments that have none."""
    if options:
        raise EnvArgumentError(f"{env_id}: unknown reset options {sorted(options)}: there are none")
