"""Prometheus metrics of the driver: the run as a whole, from the events of the board, and its processes."""

from __future__ import annotations

import hashlib
import math
from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from prometheus_client import Counter, Gauge

from archer.config.models import RunConfig
from archer.driver.progress import Event
from buffer.telemetry.collectors import FunctionCounter, process_registry
from buffer.telemetry.endpoint import Process


class RunMetrics:
    """The metrics of the driver; those of the run start with `archer_run_`.

    Returns, success and length are means of the latest cycle (stage "training") and of the latest evaluation.

    Args:
        settings: the resolved configuration as text, whose hash the run's information has.
    """

    def __init__(self, config: RunConfig, settings: str) -> None:
        self.registry = process_registry()
        common: dict[str, Any] = {"namespace": "archer", "subsystem": "run", "registry": self.registry}
        info = {
            "version": version("archer-rl"),
            "algorithm": config.algorithm,
            "environment": config.env.id,
            "mode": config.mode,
            "config_hash": hashlib.sha256(settings.encode()).hexdigest()[:12],
        }
        self.info = Gauge("info", "What runs; the value is 1.", [*info], **common)
        self.info.labels(**info).set(1)
        self.cycle = Gauge("cycle", "Finished cycles.", **common)
        self.cycles = Gauge("cycles", "Cycles of the whole run.", **common)
        self.cycles.set(config.cycles)
        self.last_event = Gauge(
            "last_event_timestamp_seconds", "Unix time of the latest event of the learner: a phase, a step.", **common
        )
        self.last_event.set_to_current_time()
        self.phase = Gauge("phase", "1 for the part of the run that goes on, 0 for the others.", ["phase"], **common)
        self._phases: set[str] = set()
        by_stage: dict[str, Any] = {"labelnames": ["stage"], **common}
        self.returns = Gauge("return", "Mean undiscounted return of an episode.", **by_stage)
        self.success = Gauge("success_ratio", "Share of the episodes that succeeded.", **by_stage)
        self.turns = Gauge("episode_turns", "Mean number of turns of an episode.", **by_stage)
        self.dropped = Counter("dropped_episodes", "Episodes that could not be played.", **common)
        self.checkpoint = Gauge(
            "checkpoint_timestamp_seconds",
            "Unix time of the latest checkpoint of this process; before the first, the start of the process.",
            **common,
        )
        self.checkpoint.set_to_current_time()
        self._totals: dict[str, float] = {}
        self.episodes = self._total("episodes", "Training episodes since the run began, over all resumes.")
        self.all_turns = self._total("turns", "Turns of these episodes.")
        self.processes = Gauge(
            "archer_processes",
            "Processes that the run should have, by role: live ones and missing ones.",
            ["role", "state"],
            registry=self.registry,
        )
        self._restarts: Mapping[str, int] = {}
        self.restarts = FunctionCounter(
            "archer_process_restarts",
            "Times that a process of the role was replaced.",
            ("role",),
            lambda: {(role,): count for role, count in self._restarts.items()},
            self.registry,
        )
        self.source_failures = Counter(
            "archer_targets_source_failures",
            "Failed requests for the addresses of processes.",
            ["source"],
            registry=self.registry,
        )

    def handle(self, event: Event) -> None:
        """Set what an event of the board says, as the journal has recorded it."""
        kind = event["kind"]
        self.last_event.set_to_current_time()
        if kind in ("phase", "stage"):
            self._enter(event[kind])
        elif kind == "cycle":
            self._cycle(event)
        elif kind == "restart":
            self.cycle.set(event["cycle"])
        elif kind == "evaluation":
            self._show("evaluation", event["return_mean"], event["success_rate"], event["mean_turns"])
        elif kind == "dropped":
            self.dropped.inc(event["episodes"])
        elif kind == "checkpoint":
            self.checkpoint.set_to_current_time()

    def count(self, live: Iterable[Process], expected: Mapping[str, int], restarts: Mapping[str, int]) -> None:
        """Set the number of live and missing processes and of restarts, by role."""
        found = Tally(process.role for process in live)
        for role, number in expected.items():
            self.processes.labels(role, "live").set(found[role])
            self.processes.labels(role, "missing").set(max(0, number - found[role]))
        self._restarts = {role: restarts.get(role, 0) for role in expected}

    def _enter(self, phase: str) -> None:
        self._phases.add(phase)
        for known in self._phases:
            self.phase.labels(known).set(known == phase)

    def _cycle(self, event: Event) -> None:
        metrics = event["metrics"]
        self.cycle.set(event["cycle"])
        for name in ("episodes", "turns"):
            self._totals[name] = max(self._totals.get(name, 0.0), metrics[name])
        if "return" in metrics:
            self._show("training", metrics["return"], metrics["success_rate"], metrics["mean_turns"])

    def _show(self, stage: str, mean_return: float, success_rate: float | None, mean_turns: float) -> None:
        self.returns.labels(stage).set(mean_return)
        self.turns.labels(stage).set(mean_turns)
        if success_rate is not None and not math.isnan(success_rate):  # else the task defines none
            self.success.labels(stage).set(success_rate)

    def _total(self, name: str, text: str) -> FunctionCounter:
        return FunctionCounter(f"archer_run_{name}", text, (), lambda: {(): self._totals.get(name, 0.0)}, self.registry)


class BoardMetrics:
    """The metrics of the board; all names start with `archer_board_`."""

    def __init__(self) -> None:
        self.registry = process_registry()
        common: dict[str, Any] = {"namespace": "archer", "subsystem": "board", "registry": self.registry}
        self.events = Counter("events", "Events published, by kind.", ["kind"], **common)
        self.waiting = Gauge("waiting_events", "Events that the driver has not read yet.", **common)
