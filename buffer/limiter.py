"""Samples per insert: which side may go on, and how far each has come. Plain state, no waiting.

The vocabulary is Reverb's. With i turns inserted and s sampled, inserts stop while
`i * samples_per_insert - s > error_buffer`, samples while `i < min_turns` or
`s - i * samples_per_insert > error_buffer`. A call is admitted as a whole, so either side overshoots by at most
one call. Without samples_per_insert inserts never stop and samples wait only for min_turns.
"""

from dataclasses import dataclass, field
from typing import Any

from buffer.config import ReplayConfig


@dataclass
class ShardProgress:
    """The last numbers a shard reported, and what its earlier lives had inserted beyond them."""

    life: str
    """Names the process that reported."""
    episodes: int = 0
    turns: int = 0
    inserted_episodes: int = 0
    inserted_turns: int = 0
    lost_episodes: int = 0
    lost_turns: int = 0


@dataclass
class Limiter:
    """Counts of the whole replay. Inserted counts never fall, though a shard without a log may forget its rows."""

    config: ReplayConfig
    sampled_turns: int = 0
    shards: dict[int, ShardProgress] = field(default_factory=dict)

    @property
    def inserted_turns(self) -> int:
        """Turns ever inserted, over all shards."""
        return sum(shard.inserted_turns + shard.lost_turns for shard in self.shards.values())

    @property
    def inserted_episodes(self) -> int:
        """Episodes ever inserted, over all shards."""
        return sum(shard.inserted_episodes + shard.lost_episodes for shard in self.shards.values())

    def report(self, shard: int, life: str, counts: dict[str, int], born: dict[str, int]) -> int:
        """Take a shard's counts, in whatever order they arrive; returns episodes that its new life came back without.

        `life` names the process, `born` are its counts when it had read its log. What an earlier life had inserted
        beyond those is gone, and still counts as inserted.
        """
        known = self.shards.setdefault(shard, ShardProgress(life))
        lost = 0
        if known.life != life:
            lost = max(0, known.inserted_episodes - born["inserted_episodes"])
            known.lost_episodes += lost
            known.lost_turns += max(0, known.inserted_turns - born["inserted_turns"])
            known.life = life
        elif counts["inserted_episodes"] < known.inserted_episodes:
            return 0
        for name in ("episodes", "turns", "inserted_episodes", "inserted_turns"):
            setattr(known, name, counts[name])
        return lost

    def insert_block(self) -> str | None:
        """None where an insert may go on, else why not."""
        ratio = self.config.samples_per_insert
        if ratio is None or self.inserted_turns * ratio - self.sampled_turns <= self.config.allowed_error:
            return None
        return (
            f"inserting waits for sampling: {self.inserted_turns} turns inserted, {self.sampled_turns} sampled, "
            f"samples_per_insert={ratio:g} with error_buffer={self.config.allowed_error:g} lets inserts run no "
            "further ahead"
        )

    def sample_block(self) -> str | None:
        """None where a sample may go on, else why not."""
        if self.inserted_turns < self.config.min_turns:
            return (
                f"sampling waits for inserting: {self.inserted_turns} turns inserted, min_turns={self.config.min_turns}"
            )
        ratio = self.config.samples_per_insert
        if ratio is None or self.sampled_turns - self.inserted_turns * ratio <= self.config.allowed_error:
            return None
        return (
            f"sampling waits for inserting: {self.inserted_turns} turns inserted, {self.sampled_turns} sampled, "
            f"samples_per_insert={ratio:g} with error_buffer={self.config.allowed_error:g} lets samples run no "
            "further ahead"
        )

    def state_dict(self) -> dict[str, Any]:
        """The counts, for JSON."""
        return {
            "sampled_turns": self.sampled_turns,
            "shards": {str(index): vars(shard) for index, shard in self.shards.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Counts written by `state_dict`."""
        self.sampled_turns = int(state["sampled_turns"])
        self.shards = {int(index): ShardProgress(**shard) for index, shard in state["shards"].items()}
