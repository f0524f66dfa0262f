"""The progress of a run on the terminal: a live panel, or plain lines if the output is not a terminal.

The events of the board drive both displays (docs/architecture.md lists them).
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

Event = dict[str, Any]

_BLOCKS = "▁▂▃▄▅▆▇█"

_SHOWN = (
    ("return", "return", "{:.2f}"),
    ("success_rate", "success", "{:.0%}"),
    ("episodes", "episodes", "{:.0f}"),
    ("tokens_per_second", "tokens/s", "{:,.0f}"),
    ("staleness", "staleness", "{:.2f}"),
    ("policy_version", "version", "{:.0f}"),
    ("critic/explained_variance", "explained variance", "{:z.2f}"),
)
"""Metric, label and format of each number that the displays show before the losses."""


@dataclass
class RunState:
    """The state of a run, as the events so far describe it."""

    name: str
    cycles: int
    started: float = field(default_factory=time.time)
    stage: str = "starting"
    phase: str = ""
    step: int = 0
    steps: int = 0
    cycle: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    returns: list[float] = field(default_factory=list)
    cycle_ends: deque[float] = field(default_factory=lambda: deque(maxlen=6))

    def apply(self, event: Event) -> None:
        kind = event["kind"]
        if kind == "stage":
            self.stage, self.phase, self.step, self.steps = event["stage"], "", 0, 0
            if self.stage == "train":
                self.cycle_ends = deque([event.get("time", time.time())], maxlen=6)
        elif kind == "phase":
            # No event marks the end of an evaluation between two cycles; the next phase does.
            self.stage, self.phase, self.step, self.steps = "train", event["phase"], 0, 0
            self.cycle = event["cycle"]
        elif kind == "step":
            self.phase, self.step, self.steps = event["phase"], event["step"], event["steps"]
            self.metrics.update(event["metrics"])
        elif kind == "restart":
            self.stage, self.phase, self.step, self.steps = "restarting the ranks", "", 0, 0
            self.cycle = event["cycle"]
        elif kind == "held_out":
            self.metrics.update(event["metrics"])
        elif kind == "cycle":
            self.cycle = event["cycle"]
            self.metrics.update(event["metrics"])
            if "return" in event["metrics"]:
                self.returns.append(event["metrics"]["return"])
            self.cycle_ends.append(event.get("time", time.time()))

    def eta(self) -> float | None:
        """Return the seconds that the remaining cycles take at the rate of the latest ones; None before the first."""
        if len(self.cycle_ends) < 2 or not self.cycles:
            return None
        per_cycle = (self.cycle_ends[-1] - self.cycle_ends[0]) / (len(self.cycle_ends) - 1)
        return max(0.0, per_cycle * (self.cycles - self.cycle))


class Progress:
    """Shows the events of a run; use as a context manager.

    On a terminal a panel is redrawn in place, and evaluations and messages scroll above it. Other outputs get plain
    lines, without phases and steps.
    """

    def __init__(self, name: str, cycles: int, console: Console | None = None) -> None:
        self.state = RunState(name, cycles)
        self._console = console or Console(file=sys.stdout, highlight=False)
        self._lock = threading.Lock()  # the board's follower delivers events; Live draws in a thread of its own
        live = Live(get_renderable=self._render, console=self._console, refresh_per_second=4)
        self._live = live if self._console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def handle(self, event: Event) -> None:
        with self._lock:
            self.state.apply(event)
        if event["kind"] == "evaluation":
            self.message(_evaluation_line(event))
        elif event["kind"] == "dropped":
            self.message(f"{event['where']}: {event['episodes']} episodes could not be played; {event['reason']}")
        elif event["kind"] == "restart":
            self.message(_restart_line(event))
        elif event["kind"] == "passes":
            for proof in event["models"].values():
                self.message(proof["line"])
        elif event["kind"] == "held_out" and self._live is None:
            self.message(_held_out_line(event))
        elif event["kind"] == "stage" and self._live is None:
            self.message(f"stage: {event['stage']}")
        elif event["kind"] == "cycle" and self._live is None:
            numbers = "  ".join(f"{label} {value}" for label, value in _numbers(event["metrics"]))
            eta = self.state.eta()
            left = f"  left {duration(eta)}" if eta else ""
            self.message(f"cycle {event['cycle']}/{self.state.cycles}  {numbers}{left}")

    def in_cycles(self) -> bool:
        """Return whether a cycle is in progress."""
        return self.state.stage == "train"

    def message(self, text: str) -> None:
        """Show a line of text that stays."""
        self._console.print(Text(text), soft_wrap=True)

    def _render(self) -> RenderableType:
        with self._lock:
            return panel(self.state, elapsed=time.time() - self.state.started)


def panel(state: RunState, *, elapsed: float) -> Panel:
    """Return the figures of a run as a panel; `elapsed` is the time of the run in seconds."""
    head = Table.grid("", Column(justify="right"), expand=True)
    training = state.stage == "train"
    cycle = f"   cycle {state.cycle} of {state.cycles}" if training else ""
    eta = state.eta() if training else None
    left = f", about {duration(eta)} left" if eta is not None else ""
    head.add_row(
        Text.assemble((state.stage, "bold"), cycle, (f"   {state.phase}", "cyan")),
        Text(duration(elapsed) + left, style="dim"),
    )
    rows: list[RenderableType] = [head]
    if state.steps:
        bar = Table.grid(padding=(0, 1))
        bar.add_row(ProgressBar(total=state.steps, completed=state.step, width=40), f"{state.step}/{state.steps}")
        rows.append(bar)
    numbers = _numbers(state.metrics)
    if numbers:
        grid = Table.grid(*[""] * 4, padding=(0, 3))
        cells = [Text.assemble((f"{label} ", "dim"), text) for label, text in numbers]
        for start in range(0, len(cells), 4):
            grid.add_row(*cells[start : start + 4])
        rows.append(grid)
    if state.returns:
        low, high = min(state.returns), max(state.returns)
        line = sparkline(state.returns, 48)
        rows.append(Text.assemble(("return  ", "dim"), (line, "green"), (f"  {low:.2f} to {high:.2f}", "dim")))
    return Panel(Group(*rows), title=f"archer · {state.name}", title_align="left", border_style="dim")


def sparkline(values: list[float], width: int) -> str:
    """Return the newest `width` values as blocks of eight heights, from the lowest to the highest value shown."""
    shown = values[-width:]
    low, high = min(shown), max(shown)
    if high == low:
        return _BLOCKS[3] * len(shown)
    return "".join(_BLOCKS[int((value - low) / (high - low) * 7.999)] for value in shown)


def duration(seconds: float) -> str:
    """Return a duration as text: 42 s, 3 min 05 s, 2 h 14 min."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _evaluation_line(event: Event) -> str:
    """Return one evaluation, with its confidence interval, as a line of text."""
    success = event.get("success_rate")
    return (
        f"evaluation of {event['name']}: return {event['return_mean']:.2f} "
        f"(95% {event['return_low']:.2f} to {event['return_high']:.2f})"
        + (f", success {success:.0%}" if success is not None else "")
        + f", {event['mean_turns']:.1f} turns, {event['episodes']} episodes"
        + (f", and {event['dropped']} more could not be played" if event.get("dropped") else "")
    )


def _restart_line(event: Event) -> str:
    """Return a restart of the ranks as a line of text."""
    start = f"cycle {event['cycle']}" if event["cycle"] else "the beginning, because there is no checkpoint yet"
    return f"{event['reason']}; restart {event['restarts']} of at most {event['limit']} from {start}"


def _held_out_line(event: Event) -> str:
    """Return the loss on held-out demonstrations as a line of text."""
    metrics = event["metrics"]
    observation = metrics.get("clone/held_out_observation_loss")
    hidden = metrics.get("clone/held_out_privileged_loss")
    return (
        f"clone after {event['step']} steps: held-out loss {metrics['clone/held_out_action_loss']:.3f} nats per action "
        "token"
        + ("" if observation is None else f", {observation:.3f} per observation token")
        + ("" if hidden is None else f", {hidden:.3f} for what the environment hides")
    )


def _numbers(metrics: dict[str, float]) -> list[tuple[str, str]]:
    """Return (label, text) of the metrics to show: the fixed ones, then every loss."""
    # NaN means that the task does not define the metric, for example success.
    known = {key: value for key, value in metrics.items() if value is not None and not math.isnan(value)}
    numbers = [(label, form.format(known[key])) for key, label, form in _SHOWN if key in known]
    losses = [key for key in sorted(known) if key.rpartition("/")[2].endswith("loss")]
    return numbers + [(key.replace("/", " ").replace("_", " "), f"{known[key]:.4f}") for key in losses]
