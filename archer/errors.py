"""Errors of this room, and the list of every room's base error that the command line turns into one sentence."""

import sys


class ArcherError(Exception):
    """Something a person can mend; its text is a whole sentence. `exit_status` is what the command ends with."""

    exit_status = 1


class ConfigError(ArcherError):
    """The configuration, or an argument of the command, can't be used."""

    exit_status = 2


class RunError(ArcherError):
    """The run can't start or go on."""


class Interrupted(ArcherError):
    """Ctrl-C."""

    exit_status = 130


class ShadowError(ArcherError):
    """A folder of the user's own hides one of the installed rooms."""

    exit_status = 2


_ROOM_ERRORS = (
    ("envs.errors", "EnvError"),
    ("buffer.errors", "ReplayError"),
    ("actors.errors", "ActorError"),
    ("learner.errors", "LearnerError"),
)


def room_errors() -> tuple[type[Exception], ...]:
    """Base errors of the rooms that are loaded: only those can have raised, so nothing is imported for this."""
    loaded = [(sys.modules[module], name) for module, name in _ROOM_ERRORS if module in sys.modules]
    return (ArcherError, *(getattr(module, name) for module, name in loaded))
