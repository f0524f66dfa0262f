"""Where episodes live: a hash of their id names the shard, also after shards were added."""

import hashlib
import zlib
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from buffer.flight.endpoint import Locate


def shard_of(episode_id: str, shards: int) -> int:
    """The shard an episode lives in; the same in every process and version.

    Jump consistent hash (Lamping and Veach, 2014): of n + 1 shards the last takes its share of the ids, and every
    other id stays where it is with n.
    """
    key = int.from_bytes(hashlib.blake2b(episode_id.encode(), digest_size=8).digest(), "big")
    shard, jump = -1, 0
    while jump < shards:
        shard = jump
        key = (key * 2862933555777941757 + 1) & 0xFFFFFFFFFFFFFFFF
        jump = int((shard + 1) * ((1 << 31) / ((key >> 33) + 1)))
    return shard


class Placement(NamedTuple):
    """A way in which ids were placed once."""

    by: Literal["crc32", "jump"]
    shards: int

    def home(self, episode_id: str) -> int:
        """The shard an id then lived in."""
        if self.by == "jump":
            return shard_of(episode_id, self.shards)
        return zlib.crc32(episode_id.encode()) % self.shards


class Topology(NamedTuple):
    """The shards there are."""

    endpoints: Sequence[Locate]
    earlier: Sequence[Placement]
    """How ids were placed before: where they may lie still."""


Find = Callable[[], Topology]
"""Asks for the present topology."""
