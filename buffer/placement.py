"""The shard of an episode, from a hash of its id."""

import hashlib


def shard_of(episode_id: str, shards: int) -> int:
    """Return the index of an episode's shard; the same in every process and version.

    Jump consistent hash (Lamping and Veach, 2014): when a shard is added, ids either stay or move to the new shard.
    """
    key = int.from_bytes(hashlib.blake2b(episode_id.encode(), digest_size=8).digest(), "big")
    shard, jump = -1, 0
    while jump < shards:
        shard = jump
        key = (key * 2862933555777941757 + 1) & 0xFFFFFFFFFFFFFFFF
        jump = int((shard + 1) * ((1 << 31) / ((key >> 33) + 1)))
    return shard
