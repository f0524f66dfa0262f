"""Rows of random tokens for the programs that time the learner's passes: `learner.py` and `gpu.py`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from buffer.episodes.schema import Episode
from buffer.rollout_records import FreshActions
from learner.passes.rows import Row

PAD = 0
Bounds = tuple[int, int]
"""The fewest and the most tokens of a text."""


def random_row(
    rng: np.random.Generator, vocabulary: int, turns: int, *, observation: Bounds, action: Bounds, fresh: int
) -> Row:
    """Return an episode in which each turn is a sample and has `fresh` fresh actions."""

    def text(bounds: Bounds) -> np.ndarray:
        return rng.integers(PAD + 1, vocabulary, rng.integers(bounds[0], bounds[1] + 1)).astype(np.int32)

    pieces, start, end = [text(observation)], [], []
    for _ in range(turns):
        start.append(sum(map(len, pieces)))
        pieces.append(text(action))
        end.append(sum(map(len, pieces)))
        pieces.append(text(observation))
    drawn = [text(action) for _ in range(turns * fresh)]
    episode = Episode(
        episode_id="bench",
        tokens=np.concatenate(pieces),
        action_start=np.array(start, dtype=np.int32),
        action_end=np.array(end, dtype=np.int32),
        reward=rng.normal(size=turns).astype(np.float32),
        logprobs=np.empty(0, dtype=np.float32),
        versions=np.empty(0, dtype=np.int32),
        terminated=True,
        truncated=False,
    )
    uniform = -float(np.log(vocabulary))
    return Row(episode, np.arange(turns, dtype=np.int32), fresh=fresh_actions(drawn, fresh, uniform))


def fresh_actions(actions: Sequence[np.ndarray], per_state: int, logprob: float) -> FreshActions:
    """Return the record of `actions`, of which version 1 of the policy sampled `per_state` for each state."""
    total = sum(map(len, actions))
    return FreshActions(
        tokens=np.concatenate(actions),
        offsets=np.cumsum([0, *map(len, actions)]),
        logprobs=np.full(total, logprob, dtype=np.float32),
        versions=np.ones(total, dtype=np.int32),
        counts=np.full(len(actions) // per_state, per_state, dtype=np.int32),
    )
