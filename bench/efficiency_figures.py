"""Compute episodes to a threshold, intervals over seeds and ratios from the rows of finished runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from archer.results.statistics import bootstrap_interval

WINDOW = 128
"""Least number of episodes of a mean return that is compared with the threshold."""


@dataclass(frozen=True)
class Reached:
    """Hold the episode count at which a run reached the threshold.

    If the run did not reach it, `censored` is true and `episodes` is the last count of the run.
    """

    episodes: int
    censored: bool


def curve(rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the episodes collected so far, int64 [cycles], and the mean sampled return, float64 [cycles].

    Cycles that played no episode are left out.
    """
    played = [row["metrics"] for row in rows if row["kind"] == "cycle" and row["metrics"].get("return") is not None]
    episodes = np.array([metrics["episodes"] for metrics in played], dtype=np.int64)
    return episodes, np.array([metrics["return"] for metrics in played], dtype=np.float64)


def episodes_to_threshold(
    episodes: np.ndarray, returns: np.ndarray, threshold: float, *, window: int = WINDOW
) -> Reached:
    """Return the first count at which the mean return of the last whole cycles reaches the threshold.

    The mean covers at least `window` episodes.

    Args:
        episodes, returns: the results of `curve`, both [cycles].

    Raises:
        ValueError: if there is no cycle.
    """
    if episodes.size == 0:
        raise ValueError("no cycle has played an episode, so there is no return to compare with a threshold")
    sizes = np.diff(episodes, prepend=0)
    for end in range(len(episodes)):
        start = end
        while start > 0 and sizes[start : end + 1].sum() < window:
            start -= 1
        part = slice(start, end + 1)
        if sizes[part].sum() >= window and np.average(returns[part], weights=sizes[part]) >= threshold:
            return Reached(int(episodes[end]), censored=False)
    return Reached(int(episodes[-1]), censored=True)


def mean_over_seeds(reached: Sequence[Reached]) -> dict[str, Any]:
    """Return the mean episodes and its 95% interval over seeds; `censored` marks a lower bound."""
    values = [float(one.episodes) for one in reached]
    low, high = bootstrap_interval(values)
    return {"mean": float(np.mean(values)), "low": low, "high": high, "censored": any(one.censored for one in reached)}


def ratio(
    baseline: Sequence[Reached], method: Sequence[Reached], *, resamples: int = 10_000, seed: int = 0
) -> dict[str, Any]:
    """Return the mean episodes of the baseline over those of the method, with a 95% bootstrap over the seeds of both.

    `bound` is "" if all runs reached the threshold, ">" if only the baseline has censored runs (the true ratio is
    larger), "<" if only the method has, and "?" if both have, so that the ratio bounds nothing.
    """
    above = np.array([one.episodes for one in baseline], dtype=np.float64)
    below = np.array([one.episodes for one in method], dtype=np.float64)
    random = np.random.default_rng(seed)
    tops = above[random.integers(0, above.size, (resamples, above.size))].mean(axis=1)
    bottoms = below[random.integers(0, below.size, (resamples, below.size))].mean(axis=1)
    low, high = np.quantile(tops / bottoms, [0.025, 0.975])
    censored = any(one.censored for one in baseline), any(one.censored for one in method)
    bound = {(False, False): "", (True, False): ">", (False, True): "<", (True, True): "?"}[censored]
    return {"mean": float(above.mean() / below.mean()), "low": float(low), "high": float(high), "bound": bound}


def evaluation_return(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Return the mean return of the last evaluation called `name` (clone or final), or None if there is none."""
    found = [row["return_mean"] for row in rows if row["kind"] == "evaluation" and row["name"] == name]
    return found[-1] if found else None


def differing_keys(one: Any, other: Any, path: str = "") -> list[str]:
    """Return the sorted dotted keys at which two trees of settings differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() | other.keys())
        missing = object()
        return [
            found
            for key in keys
            for found in differing_keys(one.get(key, missing), other.get(key, missing), f"{path}.{key}".lstrip("."))
        ]
    return [] if one == other else [path]
