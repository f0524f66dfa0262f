"""Errors of the learner. Each message names what is wrong, where, and what to do."""


class LearnerError(Exception):
    """Base class of the learner's errors."""


class NonFiniteLossError(LearnerError):
    """A loss, gradient or metric is NaN or infinite; the message names the phase, the step and the episodes."""


class AdapterError(LearnerError):
    """An adapter was made for another base model; the message names both."""


class PackingError(LearnerError):
    """A model's attention cannot follow the tree of a packed pass; the proof then takes separate sequences."""


class CheckpointError(LearnerError):
    """A checkpoint cannot be written or read."""


class WaitTimeoutError(LearnerError):
    """A wait timed out; the message names what did not answer."""
