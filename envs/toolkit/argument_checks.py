"""Checks of arguments that several environments take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from envs.errors import EnvArgumentError, nearest

Name = TypeVar("Name", bound=str)


def choose_several(env_id: str, argument: str, chosen: Sequence[Any] | None, known: Sequence[Name]) -> tuple[Name, ...]:
    """`chosen`, checked to be a list of some of `known`; all of them for None. Raises EnvArgumentError."""
    if chosen is None:
        return tuple(known)
    if isinstance(chosen, str):
        raise EnvArgumentError(f"{env_id}: {argument} is the string {chosen!r}: give a list")
    for name in chosen:
        if name not in known:
            raise EnvArgumentError(f"{env_id}: {argument} has no {name!r}: {nearest(str(name), known)}")
    if not chosen:
        raise EnvArgumentError(f"{env_id}: {argument} is empty: leave it out for all")
    return tuple(name for name in known if name in chosen)


def check_one_of(env_id: str, argument: str, value: object, known: Sequence[object]) -> None:
    """Raise EnvArgumentError where a value is none of `known`."""
    if value not in known:
        raise EnvArgumentError(f"{env_id}: {argument} is {value!r}, must be one of {tuple(known)}")


def check_cases(env_id: str, cases: int | None) -> None:
    """Raise EnvArgumentError where `cases`, the number of cases that take turns, is no such number."""
    if cases is not None and cases < 1:
        raise EnvArgumentError(f"{env_id}: cases is {cases}, must be at least 1, or null for one to each seed")
