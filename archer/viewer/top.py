"""`archer top`: the live figures of a run in a terminal, from its metrics.jsonl."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from archer.driver.progress import RunState, duration, panel
from archer.viewer.runs import Run, interval, is_number, open_run

_SHOWN_EVALUATIONS = 8


def watch(
    path: Path, console: Console, *, every_s: float, once: bool, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Show the figures of the run in `path` until it ends; with `once`, or without a terminal, show them once.

    Raises ConfigError if `path` is no run folder.
    """
    run = open_run(path)
    if once or not console.is_terminal:
        console.print(figures(run))
        return
    with Live(figures(run), console=console, screen=False, auto_refresh=False) as live:
        while run.state == "running":
            sleep(every_s)
            run = open_run(path)
            live.update(figures(run), refresh=True)


def figures(run: Run) -> RenderableType:
    """Return the panel that the run itself shows, and below it the time of each phase and the evaluations."""
    cycles = run.config.get("cycles")
    state = RunState(run.key, cycles if isinstance(cycles, int) else 0)
    for row in run.rows:
        if row["kind"] in ("cycle", "held_out") and isinstance(row.get("metrics"), dict):
            known = {name: value for name, value in row["metrics"].items() if is_number(value)}
            state.apply({"cycle": state.cycle, **row, "metrics": known})
    # The rows of a run do not say which phase is under way.
    state.stage = "train" if run.cycles and run.state == "running" else run.state
    times = [row["time"] for row in run.rows if is_number(row.get("time"))]
    last = run.cycles[-1]["metrics"] if run.cycles else {}
    parts: list[RenderableType] = [panel(state, elapsed=last.get("wall_seconds") or 0.0)]
    if run.state == "running" and times:
        parts.append(Text(f"last row {duration(max(time.time() - max(times), 0))} ago", style="dim"))
    if run.cycles:
        parts.append(_phases(run))
    if run.evaluations:
        parts.append(_evaluations(run))
    parts += [Text(problem, style="yellow") for problem in dict.fromkeys(run.problems)]
    if not run.rows:
        parts.append(Text("metrics.jsonl has no row yet", style="dim"))
    return Group(*parts)


def _phases(run: Run) -> Text:
    metrics = run.cycles[-1]["metrics"]
    seconds = {key.removeprefix("seconds/"): value for key, value in metrics.items() if key.startswith("seconds/")}
    shown = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items() if is_number(value))
    return Text.assemble(("last cycle  ", "dim"), shown)


def _evaluations(run: Run) -> Table:
    columns = Column("evaluation"), *(Column(name, justify="right") for name in ("return", "95% interval", "success"))
    table = Table(*columns, box=None, header_style="dim", padding=(0, 3, 0, 0))
    for row in run.evaluations[-_SHOWN_EVALUATIONS:]:
        success = row.get("success_rate")
        rate = f"{success:.0%}" if is_number(success) else ""
        table.add_row(Text(str(row.get("name"))), f"{row['return_mean']:.2f}", interval(row), rate)
    return table
