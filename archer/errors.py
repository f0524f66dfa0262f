"""Errors of this room, and the base errors of all rooms, which the command line prints as one sentence."""

import sys


class ArcherError(Exception):
    """An error that a user can correct. Its text is a sentence; the command ends with `exit_status`."""

    exit_status = 1


class ConfigError(ArcherError):
    """The configuration or an argument of the command is invalid."""

    exit_status = 2


class RunError(ArcherError):
    """The run cannot start or continue, or a file of its results cannot be read or written."""


class Interrupted(ArcherError):
    """A signal ended the command: Ctrl-C (status 130), SIGTERM (143) or SIGHUP (129)."""

    def __init__(self, message: str, exit_status: int = 130) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class ShadowError(ArcherError):
    """A module in the working directory or on the path hides one of the installed rooms."""

    exit_status = 2


def room_errors() -> tuple[type[Exception], ...]:
    """Return the base errors of the rooms that are imported; other rooms cannot have raised an error."""
    names = {"envs": "EnvError", "buffer": "ReplayError", "actors": "ActorError", "learner": "LearnerError"}
    loaded = [(sys.modules.get(f"{room}.errors"), name) for room, name in names.items()]
    return (ArcherError, *(getattr(module, name) for module, name in loaded if module is not None))
