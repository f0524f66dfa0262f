"""Whether the mean return of a run falls below that of its clone, the policy that training began with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_NORMAL_95 = 1.96


class CloneWatch:
    """Compares evaluations and cycles with the evaluation of the clone; `note` takes the rows of a run in order.

    A mean is below the clone's if the difference exceeds the 95% interval of the difference of the two means. The
    episodes of training are sampled, so that they are not compared with a greedy evaluation.
    """

    def __init__(self) -> None:
        self.below: list[str] = []
        """Names of the evaluations and cycles that were below, in order."""
        self._clone: Mapping[str, Any] | None = None
        self._episodes = 0.0
        self._is_below = False

    def note(self, row: Mapping[str, Any]) -> str | None:
        """Take a row of metrics.jsonl. Return a sentence if the return is below the clone's and was not before."""
        found = self._evaluation(row) if row["kind"] == "evaluation" else None
        if row["kind"] == "cycle":
            found = self._cycle(row)
        if found is None or self._clone is None:
            return None
        name, mean, margin = found
        clone = self._clone["return_mean"]
        allowed = math.hypot(margin, clone - self._clone["return_low"])
        was_below, self._is_below = self._is_below, clone - mean > allowed
        if not self._is_below:
            return None
        self.below.append(name)
        if was_below:
            return None
        return (
            f"{name}: the return {mean:.2f} is below that of the clone, {clone:.2f}, by more than the 95% interval of "
            f"the difference, {allowed:.2f}"
        )

    def _evaluation(self, row: Mapping[str, Any]) -> tuple[str, float, float] | None:
        """Return name, mean and half the interval of an evaluation; keep the clone's."""
        if row["name"] == "clone":
            self._clone = row
            return None
        return f"evaluation {row['name']}", row["return_mean"], row["return_high"] - row["return_mean"]

    def _cycle(self, row: Mapping[str, Any]) -> tuple[str, float, float] | None:
        """Return name, mean and half the interval of a cycle's sampled episodes, if it played any."""
        metrics = row["metrics"]
        played = metrics.get("episodes", self._episodes) - self._episodes
        self._episodes += played
        mean, std = metrics.get("return"), metrics.get("return_std")
        if mean is None or std is None or played <= 0 or self._clone is None or self._clone.get("greedy"):
            return None
        return f"cycle {row['cycle']}", mean, _NORMAL_95 * std / math.sqrt(played)
