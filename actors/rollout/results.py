"""The result of one episode, and the report over many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from buffer.rollout_records import CollectReport, PlayedEpisode


@dataclass(frozen=True)
class EpisodeResult:
    """The figures of one episode that the worker returns to the pool; the episode itself goes to replay.

    `CollectReport` has a column or a sum of each figure and defines it.
    failure: error message if the episode could not be played and was dropped; the other figures are then zero.
    kept: the episode itself, if the caller asked for it.
    """

    seed: int
    ret: float = 0.0
    success: bool | None = None
    turns: int = 0
    invalid_actions: int = 0
    rejected_calls: int = 0
    endless_thoughts: int = 0
    action_tokens: int = 0
    version: float = 0.0
    window_truncated: bool = False
    failure: str | None = None
    kept: PlayedEpisode | None = None


def to_keep(seed: int, group: int, every: int) -> bool:
    """Return whether the episode `seed` is one of each `every` that are kept; 0 keeps none, and a group stays whole."""
    return every > 0 and (seed // group) % every == 0


def summarize(results: Sequence[EpisodeResult], *, seconds: float, lost: int, next_seed: int) -> CollectReport:
    """Return the report over `results`. Dropped episodes contribute their error message only."""
    finished = sorted((r for r in results if r.failure is None), key=lambda r: r.seed)
    return CollectReport(
        returns=np.array([r.ret for r in finished], np.float32),
        successes=np.array([np.nan if r.success is None else float(r.success) for r in finished], np.float32),
        turns=np.array([r.turns for r in finished], np.int32),
        invalid_actions=np.array([r.invalid_actions for r in finished], np.int32),
        rejected_calls=sum(r.rejected_calls for r in finished),
        endless_thoughts=sum(r.endless_thoughts for r in finished),
        versions=np.array([r.version for r in finished], np.float32),
        seeds=np.array([r.seed for r in finished], np.int64),
        tokens=np.array([r.action_tokens for r in finished], np.int32),
        seconds=seconds,
        window_truncations=sum(r.window_truncated for r in finished),
        lost=lost,
        next_seed=next_seed,
        failures=[r.failure for r in results if r.failure is not None],
        kept=[r.kept for r in finished if r.kept is not None],
    )
