"""Errors of the learner. Each message says what was wrong, where, and what to do."""


class LearnerError(Exception):
    """Base of all errors that the learner raises on purpose."""


class NonFiniteLossError(LearnerError):
    """A loss became NaN or infinite; the message names the phase, the step and the episodes."""


class AdapterError(LearnerError):
    """An adapter does not fit the model that it is to change; the message names both."""


class CheckpointError(LearnerError):
    """A checkpoint could not be written or read."""


class WaitTimeoutError(LearnerError):
    """The learner waited too long; the message says for whom."""
