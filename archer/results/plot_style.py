"""The common style of the project's pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from archer.driver.run_folder import disk_errors
from buffer.atomic_files import write_atomic

INK = "#333333"


def new_figure(height: float) -> tuple[Any, Any]:
    """Return a figure 8 inches wide and `height` inches high, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), dpi=200, layout="constrained")
    return figure, figure.add_subplot()


def stacked_figure(heights: Sequence[float]) -> tuple[Any, list[Any]]:
    """Return a figure 8 inches wide and its axes from top to bottom, of these heights in inches, with one x axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, sum(heights)), dpi=200, layout="constrained")
    axes = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)
    return figure, list(axes[:, 0])


def save(figure: Any, path: Path) -> Path:
    """Write a figure as PNG to `path`, and return `path`."""
    image = io.BytesIO()
    figure.savefig(image, format="png")
    with disk_errors(path):
        write_atomic(path, image.getvalue())
    return path


def dress(axes: Any, title: str, *, grid: str) -> None:
    """Apply the style to axes; `grid` is the axis with grid lines, "x" or "y"."""
    axes.set_title(title, loc="left", fontsize=12, color=INK, pad=10)
    axes.grid(axis=grid, color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#aaaaaa")
    axes.tick_params(colors=INK)


def legend(where: Any, **place: Any) -> None:
    """Add a legend to axes, or to a figure beside its axes."""
    style = {"fontsize": 9, "labelcolor": INK, "facecolor": "white", "edgecolor": "none", "framealpha": 0.9}
    where.legend(**style, **place)
