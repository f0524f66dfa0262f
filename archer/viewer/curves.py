"""The charts of a run: series over the number of collected episodes, from the rows of metrics.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from archer.viewer.runs import Row, Run, is_number

Series = dict[str, Any]
"""label, x, y, and for evaluations low and high (their 95% interval); `points` if single values are marked."""

_FIXED: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("success", "Success rate", (("success_rate", "training"),)),
    ("critic", "Explained variance of the critic", (("critic/explained_variance", "explained variance"),)),
    (
        "start",
        "First state: value and return",
        (("critic/value_start", "V(s₀)"), ("critic/return_start", "discounted return")),
    ),
    ("turns", "Turns per episode", (("mean_turns", "training"),)),
    ("staleness", "Staleness in policy versions", (("staleness", "tokens"),)),
    ("speed", "Action tokens per second", (("tokens_per_second", "rollouts"),)),
)
_PHASES = "seconds/"


def charts(run: Run) -> list[dict[str, Any]]:
    """Return the charts of a run, those that have a value: id, title, and series."""
    cycles = run.cycles
    found: list[dict[str, Any]] = [{"id": "return", "title": "Return", "series": return_series(run)}]
    for name, title, series in _FIXED:
        lines = [_line(cycles, key, label) for key, label in series]
        if name == "success":
            lines.append(_evaluated(run.evaluations, "success_rate", "evaluation"))
        found.append({"id": name, "title": title, "series": lines})
    keys = sorted({key for row in cycles for key in row["metrics"]})
    losses = [key for key in keys if key.rpartition("/")[2].endswith("loss") and not key.startswith("clone")]
    found.append({"id": "losses", "title": "Losses", "series": [_line(cycles, key, _words(key)) for key in losses]})
    phases = [key for key in keys if key.startswith(_PHASES)]
    lines = [_line(cycles, key, key.removeprefix(_PHASES)) for key in phases]
    found.append({"id": "time", "title": "Seconds per cycle, by phase", "series": lines})
    for chart in found:
        chart["series"] = [series for series in chart["series"] if series["x"]]
    return [chart for chart in found if chart["series"]]


def return_series(run: Run) -> list[Series]:
    """Return the return of each cycle's episodes, and of each evaluation with its interval."""
    training = _line(run.cycles, "return", "training")
    return [training, _evaluated(run.evaluations, "return_mean", "evaluation", "return_low", "return_high")]


def other_metrics(run: Run) -> list[dict[str, Any]]:
    """Return a chart of each metric of a cycle, by name."""
    keys = sorted({key for row in run.cycles for key in row["metrics"]} - {"episodes"})
    found = [{"id": key, "title": key, "series": [_line(run.cycles, key, key)]} for key in keys]
    return [chart for chart in found if chart["series"][0]["x"]]


def _line(cycles: Sequence[Row], key: str, label: str) -> Series:
    points = [
        (row["metrics"]["episodes"], row["metrics"][key])
        for row in cycles
        if is_number(row["metrics"].get(key)) and is_number(row["metrics"].get("episodes"))
    ]
    return {"label": label, "x": [x for x, _ in points], "y": [y for _, y in points]}


def _evaluated(rows: Sequence[Row], key: str, label: str, low: str = "", high: str = "") -> Series:
    known = [row for row in rows if is_number(row.get(key)) and is_number(row.get("collected_episodes"))]
    series = {"label": label, "x": [r["collected_episodes"] for r in known], "y": [r[key] for r in known]}
    bounds = {"low": [r.get(low) for r in known], "high": [r.get(high) for r in known]} if low else {}
    return {**series, **bounds, "names": [r.get("name") for r in known], "points": True}


def _words(key: str) -> str:
    return key.replace("/", " ").replace("_", " ")
