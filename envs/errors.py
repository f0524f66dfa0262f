"""Errors of this room. All derive from `EnvError`."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def printable(text: str) -> str:
    """Return the text with lone surrogates escaped: Ray and logs cannot encode them, and would lose the error."""
    return text.encode("utf-8", "backslashreplace").decode()


class EnvError(Exception):
    """Base class of all errors that this room raises."""

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


class UnknownEnvError(EnvError):
    """The id is not registered, or its module cannot be found."""


class MissingExtraError(EnvError):
    """The package that an environment wraps is not installed; the message contains the install command."""


class EnvArgumentError(EnvError, ValueError):
    """An argument of an environment is unknown, missing or out of range."""


class EnvStateError(EnvError):
    """A method was called out of order: a step before reset, after the end of the episode or after close."""


class EnvTimeoutError(EnvError, TimeoutError):
    """An environment did not answer within its timeout."""


class EnvFailedError(EnvError):
    """The code of the environment raised, or its child process died. `__cause__` holds the reason."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a clause that names the known names closest to `name`, or all of them if none is close."""
    choices = sorted(known)
    close = get_close_matches(name, choices, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    if not choices:
        return "there are none"
    return "known: " + ", ".join(repr(c) for c in choices)
