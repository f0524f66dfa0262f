"""Samples per insert: the counts of both sides, and the rule that blocks one of them. It does not wait itself.

The rule is that of Reverb, with a limiter per view. With i turns inserted and s turns sampled of a view, inserts block
while `i * samples_per_insert - s > error_buffer` for any view; samples of that view block while `i < min_turns` or
`s - i * samples_per_insert > error_buffer`. A call is admitted as a whole, so each side overshoots by at most one call.
Without samples_per_insert inserts never block, and samples block only below min_turns.
"""

from dataclasses import dataclass, field
from typing import Any

from buffer.config import ReplayConfig
from buffer.sampling.request import VIEWS, View


@dataclass
class ShardProgress:
    """The last counts that a shard reported, and the inserted ones that its earlier processes lost."""

    life: str  # Identifies the shard's process that reported
    episodes: int = 0
    turns: int = 0
    inserted_episodes: int = 0
    inserted_turns: int = 0
    lost_episodes: int = 0
    lost_turns: int = 0


@dataclass
class Limiter:
    """Counts of the whole replay. Inserted counts never decrease, even if a shard without a log loses its rows."""

    config: ReplayConfig
    sampled: dict[View, int] = field(default_factory=lambda: dict.fromkeys(VIEWS, 0))  # Turns ever sampled of each view
    shards: dict[int, ShardProgress] = field(default_factory=dict)

    @property
    def sampled_turns(self) -> int:
        """Turns ever sampled, over all views."""
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
        """Record a shard's counts, in any order of arrival; returns the episodes that a new process does not have.

        `life` identifies the process; `born` are its counts after it read its log. Rows beyond `born` that an earlier
        process had inserted are lost, and still count as inserted.
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
        """Return None if an insert is admitted, else the reason why not."""
        for view, limit in self.config.limits.items():
            ratio = limit.samples_per_insert
            if ratio is not None and self.inserted_turns * ratio - self.sampled[view] > limit.allowed_error:
                return f"inserting waits for sampling: {self._numbers(view)}"
        return None

    def sample_block(self, view: View) -> str | None:
        """Return None if a sample of the view is admitted, else the reason why not."""
        limit, inserted, sampled = self.config.limits[view], self.inserted_turns, self.sampled[view]
        if inserted < limit.min_turns:
            return f"sampling waits for inserting: {inserted} turns inserted, {view}.min_turns={limit.min_turns}"
        ratio = limit.samples_per_insert
        if ratio is None or sampled - inserted * ratio <= limit.allowed_error:
            return None
        return f"sampling waits for inserting: {self._numbers(view)}"

    def _numbers(self, view: View) -> str:
        limit = self.config.limits[view]
        return (
            f"{self.inserted_turns} turns inserted, {self.sampled[view]} sampled of the {view} view; "
            f"{view}.samples_per_insert={limit.samples_per_insert:g} with error_buffer={limit.allowed_error:g} allows "
            "no more"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the counts, for JSON."""
        return {"sampled": self.sampled, "shards": {str(index): vars(shard) for index, shard in self.shards.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the counts from `state_dict`."""
        self.sampled = {view: state["sampled"][view] for view in VIEWS}
        self.shards = {int(index): ShardProgress(**shard) for index, shard in state["shards"].items()}
