"""Draw the picture of `sample_efficiency.py`: return over episodes of each method, styled as the learning curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from archer.results.plot_style import INK, dress, legend, new_figure, save

COLOURS = ("#1f6f8b", "#c8553d", "#2a7f3f", "#8a5a9e", "#b8860b", "#5a6b7b", "#a0436f", "#4d7c0f")


def draw(runs: Mapping[str, Sequence[dict[str, Any]]], threshold: float, path: Path, *, title: str) -> Path:
    """Write a PNG 1600 pixels wide with a line for each seed, and the mean and range of each method; return `path`."""
    figure, axes = new_figure(4.5)
    for (method, done), colour in zip(runs.items(), COLOURS * len(runs), strict=False):
        for one in done:
            axes.plot(*one["curve"], color=colour, linewidth=0.7, alpha=0.45)
        # Seeds may end at different counts: the mean ends with the shortest.
        start, stop = max(one["curve"][0][0] for one in done), min(one["curve"][0][-1] for one in done)
        grid = np.linspace(start, max(start, stop), 200)
        all_returns = np.stack([np.interp(grid, *one["curve"]) for one in done])
        label = f"{method} ({len(done)} seed{'s' * (len(done) > 1)})"
        axes.plot(grid, all_returns.mean(axis=0), color=colour, linewidth=2, label=label)
        axes.fill_between(grid, all_returns.min(axis=0), all_returns.max(axis=0), color=colour, alpha=0.15, linewidth=0)
    axes.axhline(threshold, color=INK, linewidth=1, linestyle=(0, (4, 4)), label=f"threshold {threshold:g}")
    clones = [one["clone"] for done in runs.values() for one in done if one["clone"] is not None]
    if clones:
        axes.axhline(np.mean(clones), color=INK, linewidth=1, linestyle=":", label="cloned policy")
    dress(axes, title, grid="y")
    axes.set_xlabel("episodes", color=INK)
    axes.set_ylabel("return per episode", color=INK)
    axes.set_xlim(left=0)
    legend(axes, loc="best")
    return save(figure, path)
