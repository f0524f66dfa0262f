"""Draw the pictures of `sample_efficiency.py` from the rows of its JSON, in the style of the learning curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from archer.results.plot_style import INK, dress, legend, new_figure, save
from bench.efficiency_figures import TAIL, iqm, resampled
from bench.efficiency_tasks import METHODS, TASKS

COLOURS = ("#1f6f8b", "#c8553d", "#2a7f3f", "#8a5a9e", "#b8860b", "#5a6b7b", "#a0436f", "#4d7c0f")
LINEAR = 64
"""Episodes up to which the axis is linear; beyond, it is logarithmic."""
Runs = Sequence[Mapping[str, Any]]


def draw_curves(task: str, runs: Runs, path: Path, *, families: Sequence[str]) -> Path | None:
    """Draw the return over the episodes learnt from, for the methods of some families.

    A line is the interquartile mean over seeds, the band its 95% bootstrap interval. A method that plays no episode is
    a mark at 0. Return `path`, or None if no such method has a run.
    """
    methods = [name for name, method in METHODS.items() if method.family in families or name == "archer"]
    groups = {name: [run for run in runs if run["task"] == task and run["method"] == name] for name in methods}
    groups = {name: group for name, group in groups.items() if group}
    if not any(METHODS[name].family in families for name in groups):
        return None
    figure, axes = new_figure(4.5)
    for (name, group), colour in zip(groups.items(), COLOURS * len(groups), strict=False):
        label = f"{name} ({len(group)} seed{'s' * (len(group) > 1)})"
        if all(run["learnt"] for run in group):
            _draw_method(axes, group, colour, label)
        else:
            _draw_offline(axes, group, colour, label)
    for name, style in (("lenient", ":"), ("near_optimal", (0, (4, 4)))):
        value = getattr(TASKS[task], name)
        axes.axhline(value, color=INK, linewidth=1, linestyle=style, label=f"{name.replace('_', '-')}, {value:g}")
    dress(axes, task, grid="y")
    axes.set_xscale("symlog", linthresh=LINEAR)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("episodes learnt from", color=INK)
    axes.set_ylabel("mean return of the next cycle", color=INK)
    legend(figure, loc="outside right center")
    return save(figure, path)


def draw_ratios(rows: Runs, baseline: str, path: Path) -> Path | None:
    """Draw how many times fewer episodes than `baseline` each method needs to the near-optimal return, as bars.

    A bar has its 95% interval; one whose ratio is only a bound is hatched. A method that needs no episode, or of which
    nothing is known, has no bar. Return `path`, or None if there is no bar.
    """
    drawn = [
        row
        for row in rows
        if METHODS[row["method"]].family == "main"
        and row["method"] != baseline
        and (compared := row.get("near_optimal_ratio")) is not None
        and compared["ratio"] is not None
        and compared["bound"] != "?"
    ]
    if not drawn:
        return None
    figure, axes = new_figure(1.3 + 0.3 * len(drawn))
    names = list(dict.fromkeys(row["method"] for row in drawn))
    for line, row in enumerate(drawn):
        compared = row["near_optimal_ratio"]
        middle, low, high = compared["ratio"], compared["low"], compared["high"]
        colour = COLOURS[names.index(row["method"]) % len(COLOURS)]
        hatch = "//" if compared["bound"] else None
        axes.barh(line, middle - 1, left=1, color=colour, alpha=0.85, hatch=hatch, edgecolor="white")
        left = middle - min(low, middle) if low is not None else 0.0
        right = max(high, middle) - middle if high is not None else 0.0
        axes.errorbar([middle], [line], xerr=[[left], [right]], color=INK, capsize=3, linewidth=1.2)
        text = f"{compared['bound']} {middle:.3g}".strip()
        place: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
        axes.annotate(text, (1, line), xytext=(6, 0), va="center", fontsize=9, color=INK, **place)
    axes.set_yticks(range(len(drawn)), [f"{row['task']}: {row['method']}" for row in drawn])
    axes.invert_yaxis()
    axes.set_xscale("log")
    for set_formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        set_formatter(lambda value, _: f"{value:g}")
    axes.axvline(1, color=INK, linewidth=1)
    dress(axes, f"Episodes of {baseline} / episodes of the method, to the near-optimal return", grid="x")
    return save(figure, path)


def _draw_method(axes: Any, group: Runs, colour: str, label: str) -> None:
    # Seeds may end at different counts: the line ends with the shortest.
    stop = min(run["learnt"][-1] for run in group)
    grid = np.unique(np.concatenate([run["learnt"] for run in group]))
    grid = grid[grid <= stop]
    returns = np.stack([np.interp(grid, run["learnt"], run["returns"]) for run in group])
    axes.plot(grid, iqm(returns.T), color=colour, linewidth=2, label=label)
    # One choice of seeds for the whole curve.
    chosen = resampled([np.arange(len(group))])
    samples = np.stack([iqm(values[chosen]) for values in returns.T])
    low, high = np.quantile(samples, [TAIL, 1 - TAIL], axis=1)
    axes.fill_between(grid, low, high, color=colour, alpha=0.15, linewidth=0)


def _draw_offline(axes: Any, group: Runs, colour: str, label: str) -> None:
    finals = [run["final_return"] for run in group]
    axes.plot([0] * len(finals), finals, "*", color=colour, markersize=10, clip_on=False, label=label, zorder=5)
