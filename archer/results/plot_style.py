"""How the pictures of this project look: one size, one ink, written whole or not at all."""

from pathlib import Path
from typing import Any

INK = "#333333"


def new_figure(height: float) -> tuple[Any, Any]:
    """A figure 8 inches wide, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def save(figure: Any, path: Path) -> Path:
    """Write under another name and rename, so that the picture is whole where it exists."""
    with_suffix = path.with_name(f".{path.name}.tmp.png")
    figure.savefig(with_suffix, format="png")
    with_suffix.replace(path)
    return path


def dress(axes: Any, title: str, *, grid: str) -> None:
    """What all pictures have in common; `grid` is the axis that figures are read off."""
    axes.set_title(title, loc="left", fontsize=12, color=INK, pad=10)
    axes.grid(axis=grid, color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#aaaaaa")
    axes.tick_params(colors=INK)


def legend(where: Any, **place: Any) -> None:
    """On axes, or beside them on a figure."""
    style = {"fontsize": 9, "labelcolor": INK, "facecolor": "white", "edgecolor": "none", "framealpha": 0.9}
    where.legend(**style, **place)
