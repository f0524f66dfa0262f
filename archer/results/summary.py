"""What a run came to: the summary (for people and for summary.json) and the learning curve as a picture."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from archer.driver.progress import duration
from archer.errors import RunError
from archer.results.plot_style import INK, dress, legend, new_figure, save

if TYPE_CHECKING:
    from archer.results.statistics import EvalResult

Row = dict[str, Any]


def bootstrap_interval(
    values: np.ndarray | list[float], *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values` [n]. Raises ValueError where n is 0."""
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise ValueError("no values to take an interval of")
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    rows = max(1, 4_000_000 // data.size)  # bounds the index array to some tens of megabytes
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        means[start:stop] = data[random.integers(0, data.size, (stop - start, data.size))].mean(axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def summarise(rows: list[Row], *, name: str, env: str, wall_seconds: float, state: Row | None = None) -> Row:
    """The content of summary.json from the rows of metrics.jsonl and the counters of the last checkpoint (`state`).

    `bc_return` and `final_return` are those of the evaluations named clone and final, null where there was none.
    `wall_seconds` counts the whole run, resumes included.
    """
    state = state or {}
    metrics = [row["metrics"] for row in rows if row["kind"] == "cycle"]
    last = metrics[-1] if metrics else {}
    evaluations = {row["name"]: row for row in rows if row["kind"] == "evaluation"}
    clone, final = evaluations.get("clone"), evaluations.get("final")
    gaps = [m["proof_gap"] for m in metrics if m.get("proof_gap") is not None]
    gaps += [state["proof_max_gap"]] if state.get("proof_max_gap") is not None else []
    return {
        "name": name,
        "env": env,
        **_evaluated("bc", clone),
        **_evaluated("final", final),
        "improvement": final["return_mean"] - clone["return_mean"] if clone and final else None,
        "episodes": int(state.get("episodes", last.get("episodes", 0))),
        "cycles": int(state.get("cycle", len(metrics))),
        "turns": int(state.get("turns", last.get("turns", 0))),
        "policy_version": int(state.get("version", last.get("policy_version", 0))),
        "proof_max_gap": max(gaps) if gaps else None,
        "last_sampled_return": last.get("return"),
        "wall_seconds": round(wall_seconds, 1),
        "phase_seconds": {
            phase: round(sum(m.get(f"seconds/{phase}") or 0.0 for m in metrics), 1)
            for phase in ("rollout", "critic", "actor", "broadcast")
        },
    }


def _evaluated(prefix: str, row: Row | None) -> Row:
    row = row or {}
    return {
        f"{prefix}_return": row.get("return_mean"),
        f"{prefix}_interval": [row["return_low"], row["return_high"]] if row else None,
        f"{prefix}_success_rate": row.get("success_rate"),
        f"{prefix}_evaluation_episodes": row.get("episodes"),
    }


def print_summary(summary: dict[str, Any], console: Console | None = None) -> None:
    """The summary as a table."""
    table = Table(title=f"{summary['name']} on {summary['env']}", title_justify="left", box=None, show_header=False)
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for label, key in (("cloned policy", "bc"), ("final policy", "final")):
        mean, interval, success = summary[f"{key}_return"], summary[f"{key}_interval"], summary[f"{key}_success_rate"]
        if mean is not None:
            rate = "" if success is None else f", success {success:.0%}"
            table.add_row(f"return, {label}", f"{mean:.2f}", f"95% {interval[0]:.2f} to {interval[1]:.2f}{rate}")
    if summary["improvement"] is not None:
        table.add_row("gained", f"{summary['improvement']:+.2f}", "")
    table.add_row("episodes", f"{summary['episodes']:,}", f"in {summary['cycles']} cycles")
    table.add_row("policy version", str(summary["policy_version"]), "")
    if summary["proof_max_gap"] is not None:
        table.add_row("broadcast proof", f"{summary['proof_max_gap']:.1e}", "largest gap in log-probability")
    phases = ", ".join(f"{phase} {duration(seconds)}" for phase, seconds in summary["phase_seconds"].items())
    table.add_row("time", duration(summary["wall_seconds"]), phases)
    (console or Console()).print(table)


def learning_curve(rows: list[Row], path: Path, *, title: str) -> Path:
    """Draw the return over episodes to a PNG of 1600 x 900 pixels.

    Sampled return of each cycle as points and a smoothed line; evaluations as marks with their 95% interval.
    Raises RunError where there is nothing to draw.
    """
    cycles = [row for row in rows if row["kind"] == "cycle" and row["metrics"].get("return") is not None]
    evaluations = [row for row in rows if row["kind"] == "evaluation"]
    if not cycles and not evaluations:
        raise RunError(f"no cycle and no evaluation has finished, so there is no curve to draw at {path}")
    figure, axes = new_figure(4.5)
    if cycles:
        _draw_cycles(axes, cycles)
    last_episodes = max((row["metrics"]["episodes"] for row in cycles), default=0)
    # A name that comes twice (the final evaluation of a run that was lengthened later) counts by its last row.
    for row in {row["name"]: row for row in evaluations}.values():
        _draw_evaluation(axes, row, last_episodes)
    dress(axes, title, grid="y")
    axes.set_xlabel("episodes", color=INK)
    axes.set_ylabel("return per episode", color=INK)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    legend(axes, loc="lower right")
    return save(figure, path)


def returns_plot(results: Sequence["EvalResult"], path: Path, *, title: str) -> Path:
    """Draw the mean return of each policy and decoding, with its 95% interval, to a PNG 1600 pixels wide.

    One line per policy, in the order of `results`; the dashed lines are the first policy's means. Raises RunError
    where there is nothing to draw.
    """
    if not results:
        raise RunError(f"no evaluation has finished, so there is nothing to draw at {path}")
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


_LINE, _CLONE, _FINAL = "#1f6f8b", "#c8553d", "#2a7f3f"
_DECODING = {"sampled": _LINE, "greedy": _CLONE}


def _draw_result(axes: Any, result: "EvalResult", line: float, *, reference: bool) -> None:
    """A mark with its interval, and the figures at the right edge."""
    mean, low, high = result.return_mean, result.return_low, result.return_high
    colour = _DECODING[result.decoding]
    if reference:
        axes.axvline(mean, color=colour, linewidth=1, linestyle=(0, (4, 4)), alpha=0.6)
    axes.errorbar(
        [mean],
        [line],
        xerr=[[max(0.0, mean - low)], [max(0.0, high - mean)]],
        fmt="o",
        color=colour,
        markersize=7,
        capsize=4,
        linewidth=1.5,
        zorder=5,
        label=result.decoding if line < 0.5 else None,
    )
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


def _draw_evaluation(axes: Any, row: Row, last: float) -> None:
    episodes = row["collected_episodes"]
    mean, low, high = row["return_mean"], row["return_low"], row["return_high"]
    colour = {"clone": _CLONE, "final": _FINAL}.get(row["name"], INK)
    label = {"clone": "cloned policy", "final": "final policy"}.get(row["name"])
    if row["name"] == "clone" and last > 0:
        axes.axhline(mean, color=colour, linewidth=1, linestyle=(0, (4, 4)), alpha=0.6)
    axes.errorbar(
        [episodes],
        [mean],
        yerr=[[max(0.0, mean - low)], [max(0.0, high - mean)]],
        fmt="o" if label else ".",
        color=colour,
        markersize=7 if label else 4,
        capsize=4,
        linewidth=1.5,
        zorder=5,
        clip_on=False,
        label=None if label is None else f"{label}: {mean:.2f} (95% {low:.2f} to {high:.2f})",
    )


def _smooth(values: np.ndarray) -> np.ndarray:
    """Centred mean over about a tenth of the cycles [n] -> [n]; the window shrinks towards both ends."""
    half = max(1, round(len(values) / 20))
    return np.array(
        [
            values[max(0, i - min(half, i, len(values) - 1 - i)) : i + min(half, i, len(values) - 1 - i) + 1].mean()
            for i in range(len(values))
        ]
    )
