"""Panels and dashboards as data, and the queries that they share. `generate.py` turns them into Grafana's JSON.

Every query is for the run that the variable `run` names. Grafana sets `RANGE` to at least four scrape intervals.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

RANGE = "$__rate_interval"
RUN = 'run="$run"'
NATS = "suffix: nats"
Kind = Literal["stat", "timeseries", "bars"]


@dataclass(frozen=True)
class Panel:
    """A panel: its queries are (expression, legend) pairs; `bars` are stacked. `good` and `bad` colour a stat.

    Attributes:
        width: of 24 columns.
        good: the stat is green up to this value and red above it; None leaves it uncoloured.
        most: the largest value of the axis, for shares.
    """

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    text: str = ""
    kind: Kind = "timeseries"
    width: int = 8
    good: float | None = None
    most: float | None = None
    log: bool = False
    names: bool = False
    """Whether a stat shows the name of its series in place of its value."""
    gpu: bool = False
    """Whether the panel has data only where a process has a GPU."""


@dataclass(frozen=True)
class Dashboard:
    """A dashboard: rows of panels, each with a height in Grafana's units of about 38 pixels."""

    uid: str
    title: str
    text: str
    rows: tuple[tuple[int, tuple[Panel, ...]], ...]
    tags: tuple[str, ...] = field(default=("archer",))


def rate(metric: str, by: str = "", where: str = "") -> str:
    """Return the query of a counter per second, summed over processes or `by` labels."""
    return f"sum{_by(by)} (rate({metric}{{{_labels(where)}}}[{RANGE}]))"


def quantile(q: float, histogram: str, by: str = "", where: str = "") -> str:
    """Return the query of a quantile of a histogram."""
    labels = "le" + (f", {by}" if by else "")
    return f"histogram_quantile({q}, sum by ({labels}) (rate({histogram}_bucket{{{_labels(where)}}}[{RANGE}])))"


def mean(histogram: str, by: str = "", where: str = "") -> str:
    """Return the query of the mean of a histogram."""
    parts = [f"sum{_by(by)} (rate({histogram}_{part}{{{_labels(where)}}}[{RANGE}]))" for part in ("sum", "count")]
    return f"{parts[0]} / ({parts[1]} > 0)"


def gauge(metric: str, fold: str = "max", by: str = "", where: str = "") -> str:
    """Return the query of a gauge over processes."""
    return f"{fold}{_by(by)} ({metric}{{{_labels(where)}}})"


def quantiles(histogram: str, where: str = "") -> tuple[tuple[str, str], ...]:
    """Return the queries of median, 95% and 99% of a histogram."""
    return tuple(
        (quantile(q, histogram, where=where), name) for q, name in ((0.5, "median"), (0.95, "95%"), (0.99, "99%"))
    )


def each(metric: str, **legends: str) -> tuple[tuple[str, str], ...]:
    """Return a query of each of some gauges of rank 0, named by what follows `metric`."""
    return tuple((gauge(metric + name), legend) for name, legend in legends.items())


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""


def _labels(where: str) -> str:
    return f"{RUN}, {where}" if where else RUN
