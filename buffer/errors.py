"""Errors of the replay service. Each message says what was wrong, where, and what to do."""


class ReplayError(Exception):
    """Base class: the replay service refused a request or could not serve it."""


class SchemaError(ReplayError):
    """A batch does not follow `EPISODE_SCHEMA`. Nothing of the batch was stored."""


class ReplayTimeout(ReplayError):
    """A wait timed out. The message names the waiting side and the side that it waits for."""


class DiskFullError(ReplayError):
    """The write-ahead log had no room for an append. Nothing of the append was stored."""


class LogError(ReplayError):
    """A write-ahead log or checkpoint is missing, has another version, or cannot be read or written."""


class EmptyViewError(ReplayError):
    """The requested view holds no episode."""
