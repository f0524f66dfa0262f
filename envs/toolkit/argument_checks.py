"""Checks of arguments that several environments take."""

from __future__ import annotations

from collections.abc import Sequence
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


def check_cases(env_id: str, cases: int | None) -> None:
    """Raise EnvArgumentError if `cases`, the number of distinct cases, is neither None nor at least 1."""
    if cases is not None and cases < 1:
        raise EnvArgumentError(f"{env_id}: cases is {cases}, must be at least 1, or null for one case per seed")
