"""The pictures of a run and of a comparison, as PNG files."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from archer.errors import RunError
from archer.results.plot_style import INK, dress, legend, new_figure, save, stacked_figure
from archer.results.statistics import EvalResult

Row = dict[str, Any]

_LINE, _CLONE, _FINAL = "#1f6f8b", "#c8553d", "#2a7f3f"
_DECODING = {"sampled": _LINE, "greedy": _CLONE}
_MARK: dict[str, Any] = {"capsize": 4, "linewidth": 1.5, "zorder": 5}
_DASHED: dict[str, Any] = {"linewidth": 1, "linestyle": (0, (4, 4)), "alpha": 0.6}


def learning_curve(rows: list[Row], path: Path, *, title: str) -> Path:
    """Draw the return over episodes to a PNG of 1600 x 900 pixels; with figures of the critic it is 1600 x 1600.

    The returns sampled in each cycle are points and a smoothed line; evaluations are marks with their 95% interval.
    Below are the critic's explained variance, and V(s_0) beside the discounted return, of each cycle's new episodes.
    Raises RunError if there is nothing to draw.
    """
    cycles = [row for row in rows if row["kind"] == "cycle" and row["metrics"].get("return") is not None]
    evaluations = [row for row in rows if row["kind"] == "evaluation"]
    if not cycles and not evaluations:
        raise RunError(f"no cycle and no evaluation has finished, so there is no curve to draw at {path}")
    measured = [row for row in cycles if row["metrics"].get("critic/bias") is not None]
    figure, (axes, *below) = stacked_figure([4.5, 1.75, 1.75] if measured else [4.5])
    if measured:
        _draw_critic(below[0], below[1], measured)
    if cycles:
        _draw_cycles(axes, cycles)
    last_episodes = max((row["metrics"]["episodes"] for row in cycles), default=0)
    # A run that was lengthened later has two evaluations of one name; the last row counts.
    for row in {row["name"]: row for row in evaluations}.values():
        _draw_evaluation(axes, row, last_episodes)
    dress(axes, title, grid="y")
    (axes, *below)[-1].set_xlabel("episodes", color=INK)
    axes.set_ylabel("return per episode", color=INK)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    legend(axes, loc="lower right")
    return save(figure, path)


def returns_plot(results: Sequence[EvalResult], path: Path, *, title: str) -> Path:
    """Draw the mean return of each policy and decoding, with its 95% interval, to a PNG 1600 pixels wide.

    Each policy has one line, in the order of `results`; the dashed lines are the first policy's means.
    """
    names = list(dict.fromkeys(result.name for result in results))
    decodings = list(dict.fromkeys(result.decoding for result in results))
    figure, axes = new_figure(1.3 + len(names) * (0.35 + 0.3 * len(decodings)))
    for result in results:
        line = names.index(result.name) + 0.3 * (decodings.index(result.decoding) - (len(decodings) - 1) / 2)
        _draw_result(axes, result, line, reference=len(names) > 1 and result.name == names[0])
    axes.set_yticks(range(len(names)), [textwrap.fill(name, 28) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    dress(axes, title, grid="x")
    axes.set_xlabel("return per episode: mean and 95% interval", color=INK)
    if len(decodings) > 1:
        legend(figure, loc="outside lower right", ncols=2)
    return save(figure, path)


def _draw_result(axes: Any, result: EvalResult, line: float, *, reference: bool) -> None:
    """Draw a mark with its interval, and the numbers at the right edge."""
    mean, low, high = result.return_mean, result.return_low, result.return_high
    colour = _DECODING[result.decoding]
    if reference:
        axes.axvline(mean, color=colour, **_DASHED)
    label = result.decoding if line < 0.5 else None
    xerr = _error_bar(mean, low, high)
    axes.errorbar([mean], [line], xerr=xerr, fmt="o", color=colour, markersize=7, label=label, **_MARK)
    axes.annotate(
        f"{mean:.2f} ({low:.2f} to {high:.2f})",
        (1, line),
        xytext=(6, 0),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        verticalalignment="center",
        fontsize=9,
        color=colour,
    )


def _draw_cycles(axes: Any, cycles: list[Row]) -> None:
    episodes = np.array([row["metrics"]["episodes"] for row in cycles], dtype=float)
    returns = np.array([row["metrics"]["return"] for row in cycles], dtype=float)
    axes.plot(episodes, returns, ".", color=_LINE, alpha=0.35, markersize=5)
    axes.plot(episodes, _smooth(returns), color=_LINE, linewidth=2, label="sampled while training")


def _draw_critic(explained: Any, start: Any, measured: list[Row]) -> None:
    """Draw the explained variance, and V(s_0) beside the discounted return, over episodes."""
    metrics = [row["metrics"] for row in measured]
    episodes = [m["episodes"] for m in metrics]
    # A critic without an explained variance (all returns are equal) leaves a gap.
    values = np.array([m.get("critic/explained_variance", np.nan) for m in metrics], dtype=float)
    explained.plot(episodes, values, ".-", color=_LINE, linewidth=1.5, markersize=5)
    explained.axhline(0, color=INK, **_DASHED)
    explained.set_ylim(*_explained_range(values))
    start.plot(episodes, [m["critic/value_start"] for m in metrics], ".-", color=_CLONE, label="V(s_0)")
    start.plot(episodes, [m["critic/return_start"] for m in metrics], ".-", color=_LINE, label="discounted return")
    for axes, label in ((explained, "explained\nvariance"), (start, "first state")):
        dress(axes, "", grid="y")
        axes.set_ylabel(label, color=INK)
    legend(start, loc="best")


def _explained_range(values: np.ndarray) -> tuple[float, float]:
    """Return the limits of the axis: up to 1, and down to the least value or to -1, beyond which all are as bad."""
    known = values[np.isfinite(values)]
    return max(min(float(known.min(initial=0.0)) - 0.1, -0.1), -1.0), 1.05


def _draw_evaluation(axes: Any, row: Row, last: float) -> None:
    episodes = row["collected_episodes"]
    mean, low, high = row["return_mean"], row["return_low"], row["return_high"]
    colour, policy = {"clone": (_CLONE, "cloned policy"), "final": (_FINAL, "final policy")}.get(row["name"], (INK, ""))
    if row["name"] == "clone" and last > 0:
        axes.axhline(mean, color=colour, **_DASHED)
    style: dict[str, Any] = {"fmt": ".", "markersize": 4}
    if policy:
        style = {"fmt": "o", "markersize": 7, "label": f"{policy}: {mean:.2f} (95% {low:.2f} to {high:.2f})"}
    yerr = _error_bar(mean, low, high)
    axes.errorbar([episodes], [mean], yerr=yerr, color=colour, clip_on=False, **style, **_MARK)


def _error_bar(mean: float, low: float, high: float) -> list[list[float]]:
    return [[max(0.0, mean - low)], [max(0.0, high - mean)]]


def _smooth(values: np.ndarray) -> np.ndarray:
    """Return the centred mean over about a tenth of the cycles, [n] -> [n]; its width shrinks towards both ends."""
    half = max(1, round(len(values) / 20))
    reach = [min(half, i, len(values) - 1 - i) for i in range(len(values))]
    return np.array([values[i - side : i + side + 1].mean() for i, side in enumerate(reach)])
