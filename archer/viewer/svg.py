"""Line charts as SVG text, for a report that needs no program to show them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

Chart = dict[str, Any]

_WIDTH, _HEIGHT = 560, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 14, 12, 34
COLOURS = 6
"""Number of classes `s0`, `s1`, ... that colour the series; the page's style sheet defines them."""


def chart_svg(chart: Chart) -> str:
    """Return the chart of `archer.viewer.curves` as an SVG element; its text is escaped."""
    xs = [x for series in chart["series"] for x in series["x"]]
    ys = [
        y for series in chart["series"] for y in (*series["y"], *_known(series.get("low")), *_known(series.get("high")))
    ]
    across, up = ticks(min(xs), max(xs)), ticks(min(ys), max(ys))
    x_of = _scale(min(across[0], min(xs)), max(across[-1], max(xs)), _LEFT, _WIDTH - _RIGHT)
    y_of = _scale(min(up[0], min(ys)), max(up[-1], max(ys)), _HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y_of(y):.1f}" y2="{y_of(y):.1f}"/>' for y in up
    ]
    parts += [f'<text class="y" x="{_LEFT - 8}" y="{y_of(y) + 4:.1f}">{number(y)}</text>' for y in up]
    parts += [f'<text class="x" x="{x_of(x):.1f}" y="{_HEIGHT - 14}">{number(x)}</text>' for x in across]
    for at, series in enumerate(chart["series"]):
        parts += _drawn(series, f"s{at % COLOURS}", x_of, y_of)
    label = escape(f"{chart['title']}, over episodes", quote=True)
    return f'<svg role="img" aria-label="{label}" viewBox="0 0 {_WIDTH} {_HEIGHT}">{"".join(parts)}</svg>'


def _drawn(series: dict[str, Any], colour: str, x_of: Any, y_of: Any) -> list[str]:
    points = [(x_of(x), y_of(y)) for x, y in zip(series["x"], series["y"], strict=True)]
    if not series.get("points"):
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dots = [
            f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in points[:1] if len(points) == 1
        ]
        return [f'<polyline class="{colour}" points="{line}"/>', *dots]
    bars = [
        f'<line class="{colour}" x1="{x:.1f}" x2="{x:.1f}" y1="{y_of(low):.1f}" y2="{y_of(high):.1f}"/>'
        for (x, _), low, high in zip(points, series.get("low") or [], series.get("high") or [], strict=False)
        if low is not None and high is not None
    ]
    return bars + [f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in points]


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return up to `most` + 1 round numbers that cover the range from `low` to `high`."""
    if high <= low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= rough)
    first = math.floor(low / step)
    return [round(step * i, 12) for i in range(first, math.ceil(high / step - 1e-9) + 1)]


def number(value: float) -> str:
    """Return a number as short text: 12,800 or 0.25 or 2e-05."""
    if value and abs(value) < 1e-3:
        return f"{value:.0e}"
    return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:.2g}"


def _scale(low: float, high: float, start: float, end: float) -> Any:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _known(values: Sequence[float | None] | None) -> list[float]:
    return [value for value in values or [] if value is not None]
