"""Prometheus metrics of the limiter."""

from typing import Any

from prometheus_client import Counter, Gauge

from buffer.limiter.limiter import Limiter
from buffer.sampling.request import VIEWS
from buffer.telemetry.collectors import BusyClock, FunctionCounter, process_registry

SIDES = ("insert", *VIEWS)  # The sides of the limiter: inserts, and samples of each view


class LimiterMetrics:
    """Metrics of the limiter; all names start with `archer_limiter_`. The totals survive a restart of the limiter."""

    def __init__(self, limiter: Limiter) -> None:
        self.registry = process_registry()
        common: dict[str, Any] = {"namespace": "archer", "subsystem": "limiter", "registry": self.registry}
        self.inserted_turns = FunctionCounter(
            "archer_limiter_inserted_turns",
            "Turns ever inserted.",
            (),
            lambda: {(): limiter.inserted_turns},
            self.registry,
        )
        self.inserted_episodes = FunctionCounter(
            "archer_limiter_inserted_episodes",
            "Episodes ever inserted.",
            (),
            lambda: {(): limiter.inserted_episodes},
            self.registry,
        )
        self.sampled_turns = FunctionCounter(
            "archer_limiter_sampled_turns",
            "Turns ever sampled.",
            ("view",),
            lambda: {(view,): turns for view, turns in limiter.sampled.items()},
            self.registry,
        )
        self.clocks = {side: BusyClock() for side in SIDES}
        self.blocked = FunctionCounter(
            "archer_limiter_blocked_seconds",
            "Seconds in which the limiter held back at least one call of this side.",
            ("side",),
            lambda: {(side,): clock.seconds for side, clock in self.clocks.items()},
            self.registry,
        )
        self.waiting = Gauge("waiting_calls", "Calls that are held back now.", ["side"], **common)
        self.timeouts = Counter("timeouts", "Calls that were held back until their timeout.", ["side"], **common)
        for side in SIDES:
            self.waiting.labels(side)
            self.timeouts.labels(side)
