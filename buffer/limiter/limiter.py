"""Samples per insert: which side may go on, and how far each has come. Plain state, no waiting.

The vocabulary is Reverb's, whose tables are views here: each has a limiter of its own. With i turns inserted and s
sampled of a view, inserts stop while `i * samples_per_insert - s > error_buffer` for any view, samples of that view
while `i < min_turns` or `s - i * samples_per_insert > error_buffer`. A call is admitted as a whole, so either side
overshoots by at most one call. Without samples_per_insert inserts never stop and samples wait only for min_turns.
"""

from dataclasses import dataclass, field
from typing import Any

from buffer.config import ReplayConfig
from buffer.sampling.row_filter import VIEWS, View


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
    sampled: dict[View, int] = field(default_factory=lambda: dict.fromkeys(VIEWS, 0))
    """Turns ever sampled of each view."""
    shards: dict[int, ShardProgress] = field(default_factory=dict)

    @property
    def sampled_turns(self) -> int:
        """Turns ever sampled, of all views."""
        return sum(self.sampled.values())

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
        inserted = self.inserted_turns
        for view, limit in self.config.limits.items():
            ratio, sampled = limit.samples_per_insert, self.sampled[view]
            if ratio is not None and inserted * ratio - sampled > limit.allowed_error:
                return (
                    f"inserting waits for sampling: {inserted} turns inserted, {sampled} sampled of the {view} view, "
                    f"{view}.samples_per_insert={ratio:g} with error_buffer={limit.allowed_error:g} lets inserts run "
                    "no further ahead"
                )
        return None

    def sample_block(self, view: View) -> str | None:
        """None where a sample of the view may go on, else why not."""
        limit, inserted, sampled = self.config.limits[view], self.inserted_turns, self.sampled[view]
        if inserted < limit.min_turns:
            return f"sampling waits for inserting: {inserted} turns inserted, {view}.min_turns={limit.min_turns}"
        ratio = limit.samples_per_insert
        if ratio is None or sampled - inserted * ratio <= limit.allowed_error:
            return None
        return (
            f"sampling waits for inserting: {inserted} turns inserted, {sampled} sampled of the {view} view, "
            f"{view}.samples_per_insert={ratio:g} with error_buffer={limit.allowed_error:g} lets samples run no "
            "further ahead"
        )

    def state_dict(self) -> dict[str, Any]:
        """The counts, for JSON."""
        return {
            "sampled": self.sampled,
            "shards": {str(index): vars(shard) for index, shard in self.shards.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Counts written by `state_dict`, also by that of an earlier version."""
        # Earlier ones counted both views as one.
        counted = state.get("sampled") or {"critic": int(state["sampled_turns"])}
        self.sampled = {view: counted.get(view, 0) for view in VIEWS}
        self.shards = {int(index): ShardProgress(**shard) for index, shard in state["shards"].items()}
