"""Prometheus metrics of the pool of rollout workers."""

from __future__ import annotations

from functools import partial
from typing import Any

from prometheus_client import Counter, Gauge

from actors.pool.supervisor import Supervisor
from buffer.telemetry.collectors import FunctionCounter, process_registry

STATES = ("starting", "ready", "stale", "dead")


class PoolMetrics:
    """The metrics of the pool; all names start with `archer_pool_`."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.registry = process_registry()
        common: dict[str, Any] = {"namespace": "archer", "subsystem": "pool", "registry": self.registry}
        self.workers = Gauge(
            "workers", "Workers by state; a stale one waits for the next broadcast.", ["state"], **common
        )

        def count(state: str) -> int:
            return sum(worker.state == state for worker in supervisor.workers)

        for state in STATES:
            self.workers.labels(state).set_function(partial(count, state))
        self.restarts = FunctionCounter(
            "archer_pool_worker_restarts",
            "Times that a worker was started again after its process or its engine had ended.",
            (),
            lambda: {(): supervisor.restarts},
            self.registry,
        )
        self.target = Gauge("target_workers", "Workers that the pool should have now.", **common)
        self.target.set_function(lambda: len(supervisor.workers))
        self.resizes = FunctionCounter(
            "archer_pool_resized_workers",
            "Workers that an elastic pool has started (grown) or retired (shrunk) since its start.",
            ("direction",),
            lambda: {("grown",): supervisor.grown, ("shrunk",): supervisor.shrunk},
            self.registry,
        )
        self.playing = Gauge("episodes_in_flight", "Episodes that workers are playing.", **common)
        self.playing.set_function(lambda: sum(worker.playing for worker in supervisor.workers))
        self.acting = Gauge("requests_in_flight", "Requests for fresh actions at workers.", **common)
        self.acting.set_function(lambda: sum(worker.acting for worker in supervisor.workers))
        self.waiting = Gauge("waiting_requests", "Requests for fresh actions that wait for room.", **common)
        self.lost = Counter("lost_episodes", "Episodes to be played again because their worker was lost.", **common)
        self.version = Gauge("policy_version", "Policy version that workers must have to play.", **common)
        self.version.set_function(lambda: supervisor.version)
