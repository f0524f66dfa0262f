"""Write the tables and pictures of docs/results.md from the rows of the JSON, between markers.

The text around them is written by hand. A part that has no rows says so, because the page must show what was not run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.efficiency_figures import over_seeds, over_tasks
from bench.efficiency_plot import draw_curves, draw_ratios
from bench.efficiency_tasks import METHODS, TASKS, Task

Row = Mapping[str, Any]
NOT_RUN = "–"


def write_page(page: Path, images: Path, content: Mapping[str, Any], real: Mapping[str, Any] | None) -> list[str]:
    """Replace the marked parts of `page` and draw the pictures; return the names of the parts.

    Args:
        content: the JSON of the inline runs.
        real: the JSON of the runs on the real stack, if there is one.

    Raises:
        ValueError: if the page lacks a marker, or has one twice.
    """
    runs, baseline = content["rows"], content["baseline"]
    rows = over_seeds(runs, baseline)
    parts = {
        "tasks": _tasks(),
        "methods": _methods(),
        "runs": _coverage(rows),
        "machine": _machine(content),
        "lenient": _episodes(rows, "lenient", baseline),
        "near_optimal": _episodes(rows, "near_optimal", baseline),
        "demonstrations": _with_demonstrations(rows, baseline),
        "returns": _returns(rows),
        "overall": _overall(runs),
        "costs": _costs(rows),
        "pictures": _pictures(runs, rows, baseline, images, page),
        "real": _real(real, baseline),
    }
    text = page.read_text(encoding="utf-8")
    for name, lines in parts.items():
        text = replaced(text, name, lines, str(page))
    page.write_text(text, encoding="utf-8")
    return list(parts)


def replaced(text: str, part: str, lines: Sequence[str], page: str) -> str:
    """Return `text` with `lines` between the two markers of a part. Raises ValueError unless it has both once."""
    begin, end = (f"<!-- made by bench/sample_efficiency.py, {part}: {edge} -->" for edge in ("begin", "end"))
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{page} needs the lines {begin} and {end} once each, to mark the place of the part")
    made = "\n".join([begin, "", *lines, "", end])
    return re.sub(f"{re.escape(begin)}.*{re.escape(end)}", lambda _: made, text, flags=re.S)


def table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table, or a sentence if it has none."""
    if not lines:
        return ["Not run."]
    return [f"| {' | '.join(cells)} |" for cells in (headings, ["---"] * len(headings), *lines)]


def with_interval(figure: Row | None, digits: int = 2) -> str:
    """Return an interquartile mean with its interval as text."""
    if figure is None:
        return NOT_RUN
    ends = (NOT_RUN if end is None else f"{end:.{digits}f}" for end in (figure["low"], figure["high"]))
    return f"{figure['iqm']:.{digits}f} ({' to '.join(ends)})"


def episodes_text(figure: Row) -> str:
    """Return episodes over seeds as text: mean, interval and the number of runs that never reached the return."""
    low, high = (f"{figure[end]:,.0f}" if figure[end] is not None else "∞" for end in ("low", "high"))
    never = f"; {figure['censored']} never" if figure["censored"] else ""
    return f"{figure['bound']} {figure['iqm']:,.0f} ({low} to {high}{never})".strip()


def ratio_text(figure: Row | None) -> str:
    """Return a ratio as text, with its bound and interval."""
    if figure is None:
        return NOT_RUN
    if figure["bound"] == "?":
        return "?"
    if figure["ratio"] is None:
        return "no episode"
    low, high = (f"{figure[end]:.3g}" if figure[end] is not None else "∞" for end in ("low", "high"))
    return f"{figure['bound']} {figure['ratio']:.3g} ({low} to {high})".strip()


def _tasks() -> list[str]:
    def changes(task: Task) -> str:
        return "<br>".join(f"`{text}`" for text in task.settings)

    lines = [
        [f"`{name}`", task.preset, changes(task), f"{task.lenient:g}", f"{task.near_optimal:g}"]
        for name, task in TASKS.items()
    ]
    return table(["task", "preset", "changes", "lenient", "near-optimal"], lines)


def _methods() -> list[str]:
    lines = []
    for name, method in METHODS.items():
        changes = "<br>".join(f"`{text}`" for text in method.settings) or "none"
        cycle = "none" if method.offline else str(method.cycle)
        lines.append([f"`{name}`", method.about, method.algorithm, cycle, changes])
    return table(["method", "what it is", "algorithm", "episodes a cycle", "changes"], lines)


def _coverage(rows: Sequence[Row]) -> list[str]:
    found = {(row["task"], row["method"]): row for row in rows}
    lines = []
    for name in METHODS:
        cells = []
        for task in TASKS:
            row = found.get((task, name))
            seeds = "" if row is None else f"{len(row['seeds'])} seed{'s' * (len(row['seeds']) > 1)}"
            cells.append(NOT_RUN if row is None else f"{seeds}, {row['episodes']:,}")
        lines.append([f"`{name}`", *cells])
    return table(["seeds and episodes of a run", *(f"`{task}`" for task in TASKS)], lines)


def _machine(content: Row) -> list[str]:
    machine, versions = content["machine"], content["versions"]
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return [
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']:g} GiB, Python {machine['python']}; "
        f"{packages}. Commands:",
        "",
        "```bash",
        *content["commands"],
        "```",
    ]


def _episodes(rows: Sequence[Row], threshold: str, baseline: str) -> list[str]:
    lines = [
        [
            f"`{row['task']}`",
            f"`{row['method']}`",
            str(len(row["seeds"])),
            episodes_text(row[threshold]),
            ratio_text(row.get(f"{threshold}_ratio")),
        ]
        for row in _in_order(rows)
    ]
    return table(["task", "method", "seeds", "episodes learnt from", f"`{baseline}` / method"], lines)


def _with_demonstrations(rows: Sequence[Row], baseline: str) -> list[str]:
    lines = [
        [f"`{row['task']}`", f"`{row['method']}`"]
        + [ratio_text(row.get(f"{name}_ratio_with_demonstrations")) for name in ("lenient", "near_optimal")]
        for row in _in_order(rows)
        if METHODS[row["method"]].family == "main" and row["method"] != baseline
    ]
    headings = ["task", "method", f"`{baseline}` / method, lenient", f"`{baseline}` / method, near-optimal"]
    return table(headings, lines)


def _returns(rows: Sequence[Row]) -> list[str]:
    lines = [
        [f"`{row['task']}`", f"`{row['method']}`", f"{row['episodes']:,}"]
        + [with_interval(row[name]) for name in ("clone_return", "best_return", "final_return")]
        for row in _in_order(rows)
    ]
    return table(["task", "method", "episodes", "clone", "best policy", "last policy"], lines)


def _overall(runs: Sequence[Row]) -> list[str]:
    near_optimal = {name: task.near_optimal for name, task in TASKS.items()}
    lines = [
        [f"`{row['method']}`", str(row["tasks"]), str(row["seeds"]), with_interval(row)]
        for row in over_tasks(runs, near_optimal)
    ]
    return table(["method", "tasks", "runs", "share of the way from the clone to the near-optimal return"], lines)


def _costs(rows: Sequence[Row]) -> list[str]:
    lines = []
    for row in _in_order(rows):
        whole, part = row["costs"], row["costs_to_near_optimal"]
        both = [
            f"{part[name]:,.0f} / {whole[name]:,.0f}"
            for name in ("critic_steps", "actor_steps", "fresh_actions", "processor_seconds")
        ]
        lines.append([f"`{row['task']}`", f"`{row['method']}`", *both, f"{row['wall_seconds']:,.0f}"])
    headings = ["critic steps", "actor steps", "fresh actions", "processor seconds", "wall seconds"]
    return table(["task", "method", *headings], lines)


def _pictures(runs: Sequence[Row], rows: Sequence[Row], baseline: str, images: Path, page: Path) -> list[str]:
    images.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []

    def show(path: Path | None, caption: str) -> None:
        if path is not None:
            lines.extend(["", f"![{caption}]({os.path.relpath(path, page.parent)})"])

    show(draw_ratios(rows, baseline, images / "results_ratio.png"), f"Episodes of {baseline} over those of each method")
    for task in TASKS:
        for families, name in ((("main",), "methods"), (("left out",), "left_out"), (("ppo",), "ppo")):
            path = images / f"results_{task}_{name}.png"
            show(draw_curves(task, runs, path, families=families), f"{task}: return over episodes, {name}")
    return lines[1:] or ["No runs yet."]


def _real(content: Row | None, baseline: str) -> list[str]:
    if content is None:
        return ["Not run."]
    rows = over_seeds(content["rows"], baseline)
    lines = [
        [
            f"`{row['task']}`",
            f"`{row['method']}`",
            str(len(row["seeds"])),
            episodes_text(row["lenient"]),
            episodes_text(row["near_optimal"]),
            with_interval(row["final_return"]),
            f"{row['wall_seconds']:,.0f}",
        ]
        for row in _in_order(rows)
    ]
    return table(["task", "method", "seeds", "lenient", "near-optimal", "last policy", "wall seconds"], lines)


def _in_order(rows: Sequence[Row]) -> list[Row]:
    tasks, methods = list(TASKS), list(METHODS)
    return sorted(rows, key=lambda row: (tasks.index(row["task"]), methods.index(row["method"])))
