"""Errors of the rollout side. Each message says what was wrong, where, and what to do."""

from __future__ import annotations


class ActorError(Exception):
    """Base of every error that this room raises on purpose."""


class PromptTooLong(ActorError):
    """A prompt leaves no room for an action in the model's window."""


class EngineDied(ActorError):
    """The engine's processes are gone; its worker has to be started again."""


class EngineStartError(ActorError):
    """The engine did not come up."""


class RenderError(ActorError):
    """Text and tokens do not agree; the message says at which token, and what stands there."""


class EnvFailureLimit(ActorError):
    """Too many episodes in a row failed in the environment; the message holds its own error."""


class StaleWorkersError(ActorError):
    """No worker holds the current weights: broadcast them, then ask again."""


class WorkersLostError(ActorError):
    """Workers died more often than a restart can mend, or one does not start at all."""


class ChooserLost(ActorError):
    """The critic that picks actions is gone or silent."""


class RolloutTimeout(ActorError):
    """A wait for workers ended without what it waited for; the message names who is missing."""


class WeightTransferError(ActorError):
    """The engine could not take the weights it was sent."""
