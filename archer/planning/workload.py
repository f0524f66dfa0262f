"""The rows of a micro-batch as large as a run can make them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from buffer.episodes.schema import Episode
from buffer.rollout_records import FreshActions
from learner.passes.rows import Row


@dataclass(frozen=True)
class Workload:
    """The size of the episodes that a rank trains on.

    Attributes:
        tokens: tokens of an episode.
        turns: its turns.
        action: tokens of each action.
        rows: episodes of a micro-batch.
    """

    tokens: int
    turns: int
    action: int
    rows: int

    def batch(self, *, whole: bool, fresh: int, bootstraps: bool = False) -> list[Row]:
        """Return the rows of a micro-batch.

        Args:
            whole: all turns of an episode are samples; else its last one.
            fresh: fresh actions at each state.
            bootstraps: the state after the last turn has fresh actions too.
        """
        return [self._row(whole, fresh, bootstraps) for _ in range(self.rows)]

    def _row(self, whole: bool, fresh: int, bootstraps: bool) -> Row:
        spacing = self.tokens // self.turns
        action = min(self.action, spacing - 1)
        end = self.tokens - spacing * np.arange(self.turns - 1, -1, -1, dtype=np.int32)
        written = self.turns * action
        episode = Episode(
            episode_id="",
            tokens=np.ones(self.tokens, np.int32),
            action_start=(end - action).astype(np.int32),
            action_end=end.astype(np.int32),
            reward=np.zeros(self.turns, np.float32),
            logprobs=np.zeros(written, np.float32),
            versions=np.ones(written, np.int32),
            terminated=not bootstraps,
            truncated=bootstraps,
        )
        turns = np.arange(self.turns) if whole else np.array([self.turns - 1])
        row = Row(episode, turns.astype(np.int32), bootstraps=bootstraps)
        if fresh:
            row.fresh = self._fresh(len(row.states), fresh)
        return row

    def _fresh(self, states: int, each: int) -> FreshActions:
        total = states * each
        return FreshActions(
            tokens=np.ones(total * self.action, np.int32),
            offsets=np.arange(total + 1) * self.action,
            logprobs=np.zeros(total * self.action, np.float32),
            versions=np.ones(total * self.action, np.int32),
            counts=np.full(states, each, np.int32),
        )
