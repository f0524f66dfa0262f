"""Errors of the replay service. Each message says what was wrong, where, and what to do."""


class ReplayError(Exception):
    """Anything the replay service refuses or cannot do."""


class SchemaError(ReplayError):
    """A batch of episodes that does not follow `buffer.episodes.schema.EPISODE_SCHEMA`. Nothing of it was stored."""


class ReplayTimeout(ReplayError):
    """A wait ended without what it waited for; the message names who waits for whom."""


class DiskFullError(ReplayError):
    """The write-ahead log had no room for an append. Nothing of that append was stored."""


class LogError(ReplayError):
    """A write-ahead log or checkpoint that cannot be read or written: wrong version, wrong shape, missing."""


class EmptyViewError(ReplayError):
    """A view that holds no episode to sample from."""


class EpochError(ReplayError):
    """A write to a replica by a process that is its shard no longer."""


class BehindError(ReplayError):
    """A write to a replica that lacks what comes before it: it was lost, and must be made anew."""
