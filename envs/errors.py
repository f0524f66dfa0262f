"""Errors of the environments' room. Whoever runs environments needs to catch `EnvError` alone."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class EnvError(Exception):
    """Base of every error this room raises."""


class UnknownEnvError(EnvError):
    """No environment goes by that id, or its module can't be found."""


class MissingExtraError(EnvError):
    """The package that an environment wraps isn't installed; the message has the command that installs it."""


class EnvArgumentError(EnvError, ValueError):
    """An argument of an environment is unknown, missing or out of range."""


class EnvStateError(EnvError):
    """A call out of order: a step before reset, after the episode's end or after close."""


class EnvTimeoutError(EnvError, TimeoutError):
    """An environment did not answer in the time allowed."""


class EnvFailedError(EnvError):
    """The environment's own code raised, or its child process died. The cause says what."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause that names the known names nearest to `name`, or all where none is near."""
    choices = sorted(known)
    close = get_close_matches(name, choices, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    if not choices:
        return "there are none"
    return "known: " + ", ".join(repr(c) for c in choices)
