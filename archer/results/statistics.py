"""Statistics of evaluations: the mean return of a set of episodes, its interval, and paired differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from archer.errors import RunError
from buffer.rollout_records import CollectReport

Decoding = Literal["sampled", "greedy"]


def bootstrap_interval(
    values: np.ndarray | list[float], *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of `values` [n]. Raises ValueError if n is 0."""
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise ValueError("no values to take an interval of")
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    rows = max(1, 4_000_000 // data.size)  # bounds the index array to some tens of megabytes
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        means[start:stop] = data[random.integers(0, data.size, (stop - start, data.size))].mean(axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


@dataclass(frozen=True)
class EvalResult:
    """The statistics of one evaluation. Returns are undiscounted; the interval is a 95% bootstrap of their mean."""

    name: str
    env: str
    episodes: int
    return_mean: float
    return_low: float
    return_high: float
    success_rate: float | None
    mean_turns: float
    mean_tokens: float | None  # action tokens per episode; None if unknown
    invalid_share: float  # of all turns
    tokens_per_second: float
    seconds: float
    greedy: bool = False
    dropped: int = 0  # further episodes, which could not be played

    @property
    def decoding(self) -> Decoding:
        return "greedy" if self.greedy else "sampled"

    @classmethod
    def from_event(cls, event: Mapping[str, Any], *, env: str, greedy: bool = False) -> EvalResult:
        """Return the statistics of an `evaluation` event of the learner, whose columns have one entry per episode.

        A success of None or NaN means that the task defines none. The column `tokens` and the duration `seconds` are
        optional. Raises RunError if the columns are empty.
        """
        name, returns = event["name"], np.asarray(event["returns"], dtype=np.float64)
        tokens, seconds = int(np.sum(event.get("tokens", 0))), float(event.get("seconds", 0.0))
        count = len(returns)
        if count == 0:
            raise RunError(f"evaluation of {name} on {env}: no episode finished, so there is nothing to average")
        low, high = bootstrap_interval(returns)
        known = np.array(event["successes"], dtype=np.float64)
        known = known[~np.isnan(known)]
        all_turns = float(np.sum(event["turns"]))
        return cls(
            name=name,
            env=env,
            episodes=count,
            return_mean=float(returns.mean()),
            return_low=low,
            return_high=high,
            success_rate=float(known.mean()) if known.size else None,
            mean_turns=all_turns / count,
            mean_tokens=tokens / count if tokens else None,
            invalid_share=float(np.sum(event["invalid_actions"])) / all_turns if all_turns else 0.0,
            tokens_per_second=tokens / seconds if seconds > 0 else 0.0,
            seconds=seconds,
            greedy=greedy,
            dropped=int(event.get("dropped", 0)),
        )


@dataclass(frozen=True)
class Evaluation:
    """One policy under one decoding: the statistics, and the report on its episodes."""

    result: EvalResult
    report: CollectReport

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per episode, in the order of their seeds; `success` is null if the task defines none."""
        report = self.report
        columns = {
            "seed": report.seeds.tolist(),
            "return": np.round(report.returns.astype(np.float64), 6).tolist(),
            "success": [None if np.isnan(success) else bool(success) for success in report.successes],
            "turns": report.turns.tolist(),
            "invalid_actions": report.invalid_actions.tolist(),
            "tokens": report.tokens.tolist(),
        }
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


@dataclass(frozen=True)
class Difference:
    """The paired difference in mean return of `name` over `first`, both under the same decoding.

    Both policies played the same environment seeds, and a seed determines the task of an episode (its hidden word, its
    map). The differences are taken seed by seed and the bootstrap resamples seeds, so the variance between tasks
    cancels. The variance of each policy's own sampling does not.
    """

    name: str
    first: str
    decoding: Decoding
    episodes: int  # seeds that both finished
    mean: float
    low: float  # 95% bootstrap
    high: float


def differences(evaluations: list[Evaluation]) -> list[Difference]:
    """Return the difference of every other policy from the first one, for each decoding.

    Two policies without a finished seed in common have none.
    """
    first = {e.result.decoding: e for e in evaluations if e.result.name == evaluations[0].result.name}
    found = []
    for other in evaluations:
        base = first.get(other.result.decoding)
        if base is None or base is other:
            continue
        _, of_base, of_other = np.intersect1d(base.report.seeds, other.report.seeds, return_indices=True)
        if of_base.size:
            gains = other.report.returns.astype(np.float64)[of_other] - base.report.returns.astype(np.float64)[of_base]
            low, high = bootstrap_interval(gains)
            result, name = other.result, base.result.name
            found.append(Difference(result.name, name, result.decoding, gains.size, float(gains.mean()), low, high))
    return found
