"""What a person sees while a run is going on: a live panel in a terminal, else one plain line per happening.

Driven by the events of the board (docs/architecture.md lists them). Both displays read one `RunState`, which only
keeps what was published; nothing here asks anybody anything.
"""

import math
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

Event = dict[str, Any]

_BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass
class RunState:
    """What the events have told so far."""

    name: str
    cycles: int
    clock: float = field(default_factory=time.time)
    stage: str = "starting"
    phase: str = ""
    step: int = 0
    steps: int = 0
    cycle: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    returns: list[float] = field(default_factory=list)
    evaluations: list[Event] = field(default_factory=list)
    message: str = ""
    cycle_ends: deque[float] = field(default_factory=lambda: deque(maxlen=6))

    def apply(self, event: Event) -> None:
        kind = event["kind"]
        if kind == "stage":
            self.stage, self.phase, self.step, self.steps = event["stage"], "", 0, 0
            if self.stage == "train":
                self.cycle_ends.clear()
                self.cycle_ends.append(event.get("time", time.time()))
        elif kind == "phase":
            # Cycles have phases; an evaluation between two of them announces its beginning only.
            self.stage, self.cycle, self.phase = "train", event["cycle"], event["phase"]
            self.step = self.steps = 0
        elif kind == "step":
            self.phase, self.step, self.steps = event["phase"], event["step"], event["steps"]
            self.metrics.update(event["metrics"])
        elif kind == "cycle":
            self.cycle = event["cycle"]
            self.metrics.update(event["metrics"])
            if "return" in event["metrics"]:
                self.returns.append(event["metrics"]["return"])
            self.cycle_ends.append(event.get("time", time.time()))
        elif kind == "evaluation":
            self.evaluations.append(event)
        elif kind == "message":
            self.message = event["text"]

    def eta(self) -> float | None:
        """Seconds to the end of the last cycle at the rate of the latest ones; None before the first."""
        if len(self.cycle_ends) < 2 or not self.cycles:
            return None
        per_cycle = (self.cycle_ends[-1] - self.cycle_ends[0]) / (len(self.cycle_ends) - 1)
        return max(0.0, per_cycle * (self.cycles - self.cycle))


class Progress(Protocol):
    """A display of a run; use as a context manager."""

    def handle(self, event: Event) -> None: ...
    def __enter__(self) -> "Progress": ...
    def __exit__(self, *_: object) -> None: ...


def make_progress(name: str, cycles: int, console: Console | None = None) -> "Progress":
    """The live panel where the output is a terminal, plain lines where it is not."""
    out = console or Console(file=sys.stdout, highlight=False)
    state = RunState(name, cycles)
    return LiveProgress(state, out) if out.is_terminal else PlainProgress(state, out)


class PlainProgress:
    """One line per stage, cycle, evaluation and message; phases and steps pass in silence."""

    def __init__(self, state: RunState, console: Console) -> None:
        self.state = state
        self._console = console

    def __enter__(self) -> "PlainProgress":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def handle(self, event: Event) -> None:
        self.state.apply(event)
        kind = event["kind"]
        if kind == "cycle":
            line = f"cycle {event['cycle']}/{self.state.cycles}  {metrics_line(event['metrics'])}"
            eta = self.state.eta()
            self._line(line + (f"  left {duration(eta)}" if eta else ""))
        elif kind == "evaluation":
            self._line(evaluation_line(event))
        elif kind == "stage":
            self._line(f"stage: {event['stage']}")
        elif kind == "message":
            self._line(event["text"])

    def _line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)


class LiveProgress:
    """A panel that is redrawn in place; evaluations and messages scroll above it and stay."""

    def __init__(self, state: RunState, console: Console) -> None:
        self.state = state
        self._console = console
        self._lock = threading.Lock()  # events come from the board's follower, drawing from Live's own thread
        self._live = Live(get_renderable=self.render, console=console, refresh_per_second=4, transient=False)

    def __enter__(self) -> "LiveProgress":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def handle(self, event: Event) -> None:
        with self._lock:
            self.state.apply(event)
        if event["kind"] == "evaluation":
            self._console.print(Text(evaluation_line(event), style="bold"))
        elif event["kind"] == "message":
            self._console.print(Text(event["text"]))

    def render(self) -> RenderableType:
        """The panel as it stands now."""
        with self._lock:
            return self._panel(self.state)

    def _panel(self, state: RunState) -> RenderableType:
        head = Table.grid(expand=True)
        head.add_column()
        head.add_column(justify="right")
        cycle = f"   cycle {state.cycle} of {state.cycles}" if state.stage == "train" else ""
        clock = duration(time.time() - state.clock)
        eta = state.eta() if state.stage == "train" else None
        head.add_row(
            Text.assemble((state.stage, "bold"), cycle, (f"   {state.phase}", "cyan")),
            Text(clock + (f", about {duration(eta)} left" if eta is not None else ""), style="dim"),
        )
        rows: list[RenderableType] = [head]
        if state.steps:
            bar = Table.grid(padding=(0, 1))
            bar.add_row(ProgressBar(total=state.steps, completed=state.step, width=40), f"{state.step}/{state.steps}")
            rows.append(bar)
        figures = _figures(state.metrics)
        if figures:
            rows.append(_grid(figures))
        if state.returns:
            low, high = min(state.returns), max(state.returns)
            line = sparkline(state.returns, 48)
            rows.append(Text.assemble(("return  ", "dim"), (line, "green"), (f"  {low:.2f} to {high:.2f}", "dim")))
        return Panel(Group(*rows), title=f"archer · {state.name}", title_align="left", border_style="dim")


def sparkline(values: list[float], width: int) -> str:
    """The newest `width` values as blocks of eight heights, lowest to highest of those shown."""
    shown = values[-width:]
    low, high = min(shown), max(shown)
    if high == low:
        return _BLOCKS[3] * len(shown)
    return "".join(_BLOCKS[int((value - low) / (high - low) * 7.999)] for value in shown)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 3 min 05 s, 2 h 14 min."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def metrics_line(metrics: dict[str, float]) -> str:
    """The figures of one cycle on one line."""
    return "  ".join(f"{label} {value}" for label, value in _figures(metrics))


def evaluation_line(event: Event) -> str:
    """One evaluation on one line, with its interval."""
    success = event.get("success_rate")
    return (
        f"evaluation of {event['name']}: return {event['return_mean']:.2f} "
        f"(95% {event['return_low']:.2f} to {event['return_high']:.2f})"
        + (f", success {success:.0%}" if success is not None else "")
        + f", {event['mean_turns']:.1f} turns, {event['episodes']} episodes"
    )


_SHOWN = (
    ("return", "return", "{:.2f}"),
    ("success_rate", "success", "{:.0%}"),
    ("episodes", "episodes", "{:.0f}"),
    ("tokens_per_second", "tokens/s", "{:,.0f}"),
    ("staleness", "staleness", "{:.2f}"),
    ("policy_version", "version", "{:.0f}"),
)


def _figures(metrics: dict[str, float]) -> list[tuple[str, str]]:
    """(label, text) of the figures worth a place: the fixed ones, then every loss."""
    # NaN stands for "nobody said", such as the success rate of a task without one.
    known = {key: value for key, value in metrics.items() if value is not None and not math.isnan(value)}
    figures = [(label, form.format(known[key])) for key, label, form in _SHOWN if key in known]
    losses = [key for key in sorted(known) if key.rpartition("/")[2].endswith("loss")]
    return figures + [(key.replace("/", " ").replace("_", " "), f"{metrics[key]:.4f}") for key in losses]


def _grid(figures: list[tuple[str, str]], columns: int = 4) -> Table:
    grid = Table.grid(padding=(0, 3))
    cells = [Text.assemble((f"{label} ", "dim"), text) for label, text in figures]
    for start in range(0, len(cells), columns):
        row = cells[start : start + columns]
        grid.add_row(*row, *[""] * (columns - len(row)))
    return grid
