"""Errors of this room. Each message says what was wrong, where, and what to do."""

from __future__ import annotations

from envs.errors import printable


class ActorError(Exception):
    """Base class of the errors of this room."""

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


class PromptTooLong(ActorError):
    """A prompt leaves no room for an action in the context window."""


class EngineDied(ActorError):
    """A process of the engine has ended; its worker must be restarted."""


class EngineStartError(ActorError):
    """The engine did not start."""


class RenderError(ActorError):
    """Text and tokens do not agree; the message names the token and the texts that differ."""


class EnvFailureLimit(ActorError):
    """Too many consecutive episodes failed in the environment; the message contains the environment's error."""


class StaleWorkersError(ActorError):
    """No worker holds the current weights. Broadcast them and retry."""


class WorkersLostError(ActorError):
    """A worker cannot start, or workers died more often than the restart limit allows."""


class PoolUnreachable(ActorError):
    """The connection to the pool broke during a call. The pool goes on; whether it got the call is unknown."""


class ChooserLost(ActorError):
    """The critic that picks actions died or did not answer in time."""


class RolloutTimeout(ActorError):
    """A wait for workers timed out; the message names the workers that are missing."""


class WeightTransferError(ActorError):
    """The engine rejected the weights."""


class WeightsUnreachable(ActorError):
    """The weights did not arrive from the learner's host; the message names its address and the reason."""
