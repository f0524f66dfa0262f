"""Prometheus metrics of a learner rank, served from its own process."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, start_http_server

_STEP_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


class LearnerMetrics:
    """The metrics of one rank; all names start with `archer_learner_`."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.step_seconds = Histogram(
            "archer_learner_step_seconds",
            "Time of a gradient step.",
            ["phase"],
            buckets=_STEP_BUCKETS,
            registry=registry,
        )
        self.wait_seconds = Counter(
            "archer_learner_wait_seconds", "Time spent waiting for fresh actions.", ["phase"], registry=registry
        )
        self.samples = Counter(
            "archer_learner_samples", "Samples in gradient steps, over all ranks.", ["phase"], registry=registry
        )
        self.value = Gauge("archer_learner_value", "Last value of a training metric.", ["metric"], registry=registry)
        self.policy_version = Gauge(
            "archer_learner_policy_version", "Policy version of the last broadcast.", registry=registry
        )
        self.cycle = Gauge("archer_learner_cycle", "Finished cycles.", registry=registry)
        self.broadcast_seconds = Histogram(
            "archer_learner_broadcast_seconds", "Time of a broadcast, including its proof.", registry=registry
        )
        self.proof_gap = Gauge(
            "archer_learner_proof_gap", "Largest difference in log-probability in the last proof.", registry=registry
        )

    def serve(self) -> int:
        """Start the HTTP endpoint on a free port and return the port."""
        server, _ = start_http_server(0)
        return int(server.server_port)
