"""Placement of episodes over shards that grow in number."""

import numpy as np

from buffer.placement import shard_of


def test_ids_are_spread_evenly_and_a_new_shard_takes_its_share_only():
    names = [f"episode-{i}" for i in range(20_000)]
    homes = {shards: np.array([shard_of(name, shards) for name in names]) for shards in range(1, 9)}
    for shards, home in homes.items():
        assert np.bincount(home, minlength=shards).min() > 0.93 * len(names) / shards
        if shards > 1:
            moved = home != homes[shards - 1]
            assert (home[moved] == shards - 1).all()


def test_placement_never_changes():
    """Rows on disk lie where it says."""
    assert [shard_of(f"e{i}", 4) for i in range(12)] == [3, 2, 3, 3, 1, 0, 2, 1, 1, 0, 1, 2]
