"""Compute the measures of finished runs, and interquartile means, intervals and ratios over seeds.

Intervals are 95% percentile bootstraps of the interquartile mean over seeds, stratified by task where several tasks
are pooled (Agarwal et al., 2021). A run that never reached a return is known to need more episodes than it played: it
counts with its episodes in lower ends, and as unbounded in upper ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 10_000
TAIL = 0.025


@dataclass(frozen=True)
class Reached:
    """Hold the number of episodes that the policy had learnt from when its mean return first passed a threshold.

    If it never did, `censored` is true and `episodes` is the number of all that the run played.
    """

    episodes: int
    censored: bool


def curve(rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the episodes learnt from before each cycle's episodes, int64 [cycles], and their mean returns [cycles].

    Cycles that played no episode are left out.
    """
    learnt, returns, before = [], [], 0
    for metrics in (row["metrics"] for row in rows if row["kind"] == "cycle"):
        if metrics.get("return") is not None:
            learnt.append(before)
            returns.append(metrics["return"])
        before = int(metrics["episodes"])
    return np.array(learnt, dtype=np.int64), np.array(returns, dtype=np.float64)


def evaluation_return(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Return the mean return of the last evaluation called `name` (clone or final), or None if there is none."""
    found = [row["return_mean"] for row in rows if row["kind"] == "evaluation" and row["name"] == name]
    return found[-1] if found else None


def episodes_to(rows: Sequence[Mapping[str, Any]], threshold: float) -> Reached:
    """Return the episodes learnt from before the first cycle whose mean return is at least `threshold`.

    The episodes of that cycle are not among them: they were played by the policy whose return they show. A run that
    played no episode is judged by its final evaluation.

    Raises:
        ValueError: if the run has neither.
    """
    learnt, returns = curve(rows)
    if learnt.size == 0:
        final = evaluation_return(rows, "final")
        if final is None:
            raise ValueError("the run has played no episode and has no final evaluation to compare with a threshold")
        return Reached(0, censored=final < threshold)
    passed = np.flatnonzero(returns >= threshold)
    if passed.size:
        return Reached(int(learnt[passed[0]]), censored=False)
    played = [row["metrics"]["episodes"] for row in rows if row["kind"] == "cycle"]
    return Reached(int(played[-1]), censored=True)


def costs(rows: Sequence[Mapping[str, Any]], reached: Reached | None = None) -> dict[str, float]:
    """Return the gradient steps of critic and actor, the fresh actions and the processor seconds of a run.

    With `reached`, they cover the cycles from whose episodes the policy had learnt then.
    """
    metrics = [row["metrics"] for row in rows if row["kind"] == "cycle"]
    if reached is not None:
        metrics = [m for m in metrics if m["episodes"] <= reached.episodes]
    sums = {"critic_steps": "critic/steps", "actor_steps": "actor/steps", "fresh_actions": "fresh_actions"}
    found = {name: float(sum(m.get(key) or 0.0 for m in metrics)) for name, key in sums.items()}
    return found | {"processor_seconds": round(float(metrics[-1]["processor_seconds"]), 1) if metrics else 0.0}


def iqm(values: np.ndarray) -> np.ndarray:
    """Return the mean without the lowest and the highest quarter, [..., n] -> [...]; below four values the mean."""
    ordered = np.sort(values, axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def resampled(groups: Sequence[np.ndarray], seed: int = 0) -> np.ndarray:
    """Return bootstrap samples of several strata, each [n_i] -> [RESAMPLES, sum n_i]; the same choices for one seed."""
    random = np.random.default_rng(seed)
    return np.concatenate([group[random.integers(0, group.size, (RESAMPLES, group.size))] for group in groups], axis=1)


def interval(groups: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return the interquartile mean of values in strata (tasks), with its interval and the number of values."""
    arrays = [np.asarray(group, dtype=np.float64) for group in groups]
    low, high = _quantiles(iqm(resampled(arrays)))
    pooled = np.concatenate(arrays)
    return {"iqm": float(iqm(pooled)), "low": low, "high": high, "seeds": int(pooled.size)}


def episodes_over_seeds(reached: Sequence[Reached], beside: int = 0) -> dict[str, Any]:
    """Return the interquartile mean of the episodes, with its interval.

    `bound` is ">" if the mean is only a lower bound, and `high` is None if the upper end is open. `censored` counts the
    runs that never reached the threshold.

    Args:
        beside: episodes that are counted for every run, such as demonstrations.
    """
    least, most = _ends(reached, beside)
    low, high = _quantiles(iqm(resampled([least])))[0], _quantiles(iqm(resampled([most])))[1]
    bound = "" if np.isfinite(iqm(most)) else ">"
    censored = sum(one.censored for one in reached)
    return {"iqm": float(iqm(least)), "bound": bound, "low": low, "high": high, "censored": censored}


def ratio(baseline: Sequence[Reached], method: Sequence[Reached], beside: int = 0) -> dict[str, Any]:
    """Return the interquartile mean of the baseline's episodes over that of the method, with its interval.

    `bound` is "" if both are known, ">" if the true ratio is larger, because the baseline's mean is a lower bound, "<"
    if it is smaller, and "?" if nothing is known. `ratio` is None if the method needs no episode. An open end is None.
    """
    (above_least, above_most), (below_least, below_most) = _ends(baseline, beside), _ends(method, beside)
    tops = [iqm(resampled([ends], seed=1)) for ends in (above_least, above_most)]
    bottoms = [iqm(resampled([ends], seed=2)) for ends in (below_least, below_most)]
    low, high = _quantiles(_divide(tops[0], bottoms[1]))[0], _quantiles(_divide(tops[1], bottoms[0]))[1]
    unknown = not np.isfinite(iqm(above_most)), not np.isfinite(iqm(below_most))
    bound = {(False, False): "", (True, False): ">", (False, True): "<", (True, True): "?"}[unknown]
    middle = float(_divide(iqm(above_least), iqm(below_least)))
    return {"ratio": middle if math.isfinite(middle) else None, "bound": bound, "low": low, "high": high}


def _ends(reached: Sequence[Reached], beside: int) -> tuple[np.ndarray, np.ndarray]:
    least = np.array([one.episodes + beside for one in reached], dtype=np.float64)
    return least, np.where([one.censored for one in reached], np.inf, least)


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return above / below, where 0 / 0 and inf / inf are 1."""
    above, below = np.asarray(above), np.asarray(below)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(above == below, 1.0, above / below)


def _quantiles(samples: np.ndarray) -> tuple[float | None, float | None]:
    """Return both ends of the interval; an infinite end is None."""
    # This method does not interpolate, which would make NaN of two infinite samples.
    ends = np.quantile(samples, [TAIL, 1 - TAIL], method="inverted_cdf")
    low, high = (float(end) if math.isfinite(end) else None for end in ends)
    return low, high


def over_seeds(runs: Sequence[Mapping[str, Any]], baseline: str) -> list[dict[str, Any]]:
    """Return one row per task and method, in the order of `runs`, which are the rows of the JSON.

    The ratios to the method `baseline` are missing for tasks on which it has no run.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["task"], run["method"]), []).append(run)
    made = []
    for (task, method), group in groups.items():
        row: dict[str, Any] = {"task": task, "method": method, "seeds": sorted(run["seed"] for run in group)}
        row["episodes"] = max(run["episodes"] for run in group)
        compared = groups.get((task, baseline))
        for threshold in ("lenient", "near_optimal"):
            mine, beside = _reached(group, threshold), int(group[0]["demonstrations"])
            row[threshold] = episodes_over_seeds(mine)
            if compared is not None:
                row[f"{threshold}_ratio"] = ratio(_reached(compared, threshold), mine)
                row[f"{threshold}_ratio_with_demonstrations"] = ratio(_reached(compared, threshold), mine, beside)
        for name in ("clone_return", "final_return", "best_return"):
            values = [run[name] for run in group if run[name] is not None]
            row[name] = interval([values]) if values else None
        for name in ("costs", "costs_to_near_optimal"):
            row[name] = {key: float(np.mean([run[name][key] for run in group])) for key in group[0][name]}
        row["wall_seconds"] = float(np.mean([run["wall_seconds"] for run in group]))
        made.append(row)
    return made


def over_tasks(runs: Sequence[Mapping[str, Any]], near_optimal: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the final return of each method over all tasks of `runs`, as a share of the way to `near_optimal`.

    A score is 0 for the clone of the same run and 1 for the task's near-optimal return. A method that lacks a task is
    left out.
    """
    tasks = list(dict.fromkeys(run["task"] for run in runs))
    scores: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        if run["final_return"] is not None and run["clone_return"] is not None:
            span = near_optimal[run["task"]] - run["clone_return"]
            score = (run["final_return"] - run["clone_return"]) / span
            scores.setdefault(run["method"], {}).setdefault(run["task"], []).append(score)
    return [
        {"method": method, "tasks": len(tasks), **interval([by_task[task] for task in tasks])}
        for method, by_task in scores.items()
        if all(task in by_task for task in tasks)
    ]


def _reached(group: Sequence[Mapping[str, Any]], threshold: str) -> list[Reached]:
    return [Reached(**run[threshold]) for run in group]


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
