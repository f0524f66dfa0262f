"""What crosses the border between workers, pool and learner: plain data over numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class FreshActions:
    """`counts[i]` actions for each state i, in the order asked for.

    Action k of all is `tokens[offsets[k] : offsets[k + 1]]`.
    """

    tokens: np.ndarray
    """int32 [total]"""
    offsets: np.ndarray
    """int64 [actions + 1]"""
    logprobs: np.ndarray
    """float32 [total], of the distribution sampled from; [0] where they were not asked for."""
    versions: np.ndarray
    """int32 [total], the policy version that wrote each token."""
    counts: np.ndarray
    """int32 [states]"""


def join_actions(parts: Sequence[FreshActions]) -> FreshActions:
    """Parts of one request, in order, as one."""
    ends = np.cumsum([0, *(len(part.tokens) for part in parts)])
    offsets = [part.offsets[1:] + start for part, start in zip(parts, ends[:-1], strict=True)]
    return FreshActions(
        tokens=np.concatenate([part.tokens for part in parts]),
        offsets=np.concatenate([np.zeros(1, np.int64), *offsets]),
        logprobs=np.concatenate([part.logprobs for part in parts]),
        versions=np.concatenate([part.versions for part in parts]),
        counts=np.concatenate([part.counts for part in parts]),
    )


@dataclass(frozen=True)
class EpisodeResult:
    """What the pool hears of one episode; the episode itself goes to replay.

    failure: why the episode was dropped, else None; the figures are then zero.
    invalid_actions: turns whose action the environment could not understand.
    window_truncated: the episode was cut because it outgrew the model's window.
    stored: it is in replay.
    version: mean policy version over its action tokens.
    """

    seed: int
    ret: float = 0.0
    success: bool | None = None
    turns: int = 0
    invalid_actions: int = 0
    action_tokens: int = 0
    version: float = 0.0
    window_truncated: bool = False
    stored: bool = False
    failure: str | None = None


@dataclass
class CollectReport:
    """What came of a number of episodes, one entry per finished episode, in the order of their seeds."""

    returns: np.ndarray
    """float32 [episodes], undiscounted."""
    successes: np.ndarray
    """float32 [episodes]: 1, 0, or NaN where the task does not say."""
    turns: np.ndarray
    """int32 [episodes]"""
    invalid_actions: np.ndarray
    """int32 [episodes]"""
    versions: np.ndarray
    """float32 [episodes], mean policy version over the action tokens of each."""
    seeds: np.ndarray
    """int64 [episodes], by which two reports are paired: the environment's, unless episodes are played in groups."""
    tokens: np.ndarray
    """int32 [episodes], action tokens of each."""
    action_tokens: int
    """Sum of `tokens`."""
    seconds: float
    env_failures: int
    """Episodes dropped because the environment raised."""
    window_truncations: int
    """Episodes cut because they outgrew the model's window."""
    lost: int
    """Episodes run again because their worker died."""
    next_seed: int
    """Lowest environment seed that is not finished."""
    failures: list[str] = field(default_factory=list)
    """The errors of the dropped episodes."""


def summarize(results: Sequence[EpisodeResult], *, seconds: float, lost: int, next_seed: int) -> CollectReport:
    """The report over `results`, dropped episodes counted apart."""
    finished = sorted((r for r in results if r.failure is None), key=lambda r: r.seed)

    def column(values: list[Any], dtype: type) -> np.ndarray:
        return np.array(values, dtype=dtype)

    return CollectReport(
        returns=column([r.ret for r in finished], np.float32),
        successes=column([np.nan if r.success is None else float(r.success) for r in finished], np.float32),
        turns=column([r.turns for r in finished], np.int32),
        invalid_actions=column([r.invalid_actions for r in finished], np.int32),
        versions=column([r.version for r in finished], np.float32),
        seeds=column([r.seed for r in finished], np.int64),
        tokens=column([r.action_tokens for r in finished], np.int32),
        action_tokens=sum(r.action_tokens for r in finished),
        seconds=seconds,
        env_failures=len(results) - len(finished),
        window_truncations=sum(r.window_truncated for r in finished),
        lost=lost,
        next_seed=next_seed,
        failures=[r.failure for r in results if r.failure is not None],
    )


@dataclass(frozen=True)
class WorkerStatus:
    """One worker as the pool sees it. `ready`: alive and on the current weights."""

    name: str
    version: int
    ready: bool
    restarts: int
    state: str = ""


@dataclass(frozen=True)
class ProbeAnswer:
    """`logprobs` [length - 1], float32: log p(tokens[i + 1] | tokens[: i + 1]) at the sampling temperature."""

    worker: str
    version: int
    logprobs: np.ndarray
