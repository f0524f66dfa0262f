"""Records of a run: the events on the board, and the rank's Prometheus metrics."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch.distributed as dist
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from buffer.rollout_records import CollectReport
from learner.algorithms.phases import Phase
from learner.errors import LearnerError
from learner.passes.rows import Batch
from learner.protocols import Publisher

STEP_EVENT_S = 0.5
"""Least seconds between two step events, which only feed the progress display."""
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
        self.restarts = Gauge(
            "archer_learner_restarts",
            "Restarts of the ranks after the death of one, in this run of the driver.",
            registry=registry,
        )
        self.broadcast_seconds = Histogram(
            "archer_learner_broadcast_seconds", "Time of a broadcast, including its proof.", registry=registry
        )
        self.pass_gap = Gauge(
            "archer_learner_pass_gap",
            "Largest difference of a log-probability between the learner's passes and the model's own, at the start.",
            registry=registry,
        )
        self.proof_gap = Gauge(
            "archer_learner_proof_gap", "Largest difference in log-probability in the last proof.", registry=registry
        )

    def serve(self) -> int:
        """Start the HTTP endpoint on a free port and return the port."""
        server, _ = start_http_server(0)
        return int(server.server_port)


class Records:
    """Publishes a run's events from rank 0, and sets the metrics of every rank.

    Args:
        earlier_s: seconds that the run took before it was resumed.
        earlier_processor_s: processor seconds of the same part of the run.
        metrics: the rank's metrics; None makes those that this process serves.
    """

    def __init__(
        self,
        board: Publisher,
        earlier_s: float,
        metrics: LearnerMetrics | None = None,
        *,
        earlier_processor_s: float = 0.0,
    ) -> None:
        self.metrics = metrics or LearnerMetrics()
        self._board = board
        self._is_first = dist.get_rank() == 0
        self._started = time.monotonic() - earlier_s
        self._processor_started = time.process_time() - earlier_processor_s
        self._last_step = 0.0

    @property
    def wall_seconds(self) -> float:
        """Seconds since the run began, over all resumes."""
        return time.monotonic() - self._started

    @property
    def processor_seconds(self) -> float:
        """Processor time of this process since the run began, over all resumes and threads.

        In an inline run this is the whole run, in other modes the learner's process without the engines.
        """
        return time.process_time() - self._processor_started

    def publish(self, kind: str, **fields: Any) -> None:
        """Publish an event: stage, phase, step, held_out, cycle, evaluation or checkpoint."""
        if self._is_first:
            self._board.publish({"kind": kind, **fields})

    def step(
        self, phase: Phase, step: int, steps: int, metrics: dict[str, float], batch: Batch, started: float
    ) -> None:
        """Record step number `step` of `steps`, which began at `started` on the monotonic clock."""
        for name, value in metrics.items():
            self.metrics.value.labels(name).set(value)
        now = time.monotonic()
        self.metrics.step_seconds.labels(phase.name).observe(now - started)
        self.metrics.wait_seconds.labels(phase.name).inc(batch.waited_s)
        self.metrics.samples.labels(phase.name).inc(batch.samples)
        if now - self._last_step > STEP_EVENT_S:
            self._last_step = now
            self.publish("step", phase=phase.name, step=step, steps=max(steps, step), metrics=metrics)

    def cycle(self, cycle: int, metrics: dict[str, float]) -> None:
        """Record a finished cycle."""
        self.metrics.cycle.set(cycle)
        self.publish("cycle", cycle=cycle, metrics=metrics)

    def held_out(self, step: int, losses: dict[str, float]) -> None:
        """Record the loss on held-out demonstrations after `step` steps of cloning."""
        for name, value in losses.items():
            self.metrics.value.labels(name).set(value)
        self.publish("held_out", step=step, metrics=losses)

    def diagnosis(self, metrics: dict[str, float]) -> None:
        """Set the metrics of a diagnosis; the cycle that it belongs to publishes them."""
        for name, value in metrics.items():
            self.metrics.value.labels(name).set(value)

    def broadcast(self, version: int, seconds: float, gap: float) -> None:
        """Record a proved broadcast."""
        self.metrics.policy_version.set(version)
        self.metrics.broadcast_seconds.observe(seconds)
        self.metrics.proof_gap.set(gap)

    def dropped(self, where: str, cycle: int, report: CollectReport) -> None:
        """Record the episodes of `where`, in cycle `cycle`, that could not be played, with the first reason."""
        if report.failures:
            count, reason = report.env_failures, report.failures[0]
            self.publish("dropped", where=where, cycle=cycle, episodes=count, reason=reason)

    def evaluation(self, name: str, collected: int, report: CollectReport) -> None:
        """Record an evaluation that was made after `collected` training episodes."""
        self.publish("evaluation", **evaluation_columns(name, collected, report))


def evaluation_columns(name: str, collected: int, report: CollectReport) -> dict[str, Any]:
    """Return an evaluation as an event has it: the columns have one entry per episode.

    "dropped" counts the episodes that could not be played. Raises LearnerError if none could.
    """
    check_finished(report, f"evaluation {name}")
    columns = ("returns", "successes", "turns", "invalid_actions")
    values = {column: getattr(report, column).tolist() for column in columns}
    return {"name": name, "collected_episodes": collected, "dropped": report.env_failures, **values}


def check_finished(report: CollectReport, where: str) -> None:
    """Raise LearnerError, with the reason, if no episode of the report finished."""
    if len(report.returns) == 0:
        reason = f"; the first error: {report.failures[0]}" if report.failures else ""
        raise LearnerError(
            f"{where}: no episode finished, {report.env_failures} could not be played{reason}. Remove the cause; the "
            "workers' logs hold more of it"
        )


def rollout_metrics(report: CollectReport, version: int) -> dict[str, float]:
    """Return the metrics of a cycle's episodes, as of policy version `version`. Raises LearnerError if there are none.

    "staleness" is the number of versions by which the episodes' tokens are behind `version`, on average.
    """
    check_finished(report, "a cycle")
    successes = report.successes[~np.isnan(report.successes)]
    return {
        "return": float(report.returns.mean()),
        "return_std": float(report.returns.std()),
        "success_rate": float(successes.mean()) if len(successes) else float("nan"),
        "invalid_actions": float(report.invalid_actions.mean()),
        "rejected_calls": report.rejected_calls / len(report.returns),
        "endless_thoughts": report.endless_thoughts / len(report.returns),
        "mean_turns": float(report.turns.mean()),
        "staleness": version - float(report.versions.mean()),
        "tokens_per_second": report.action_tokens / max(report.seconds, 1e-9),
        "env_failures": float(report.env_failures),
        "lost": float(report.lost),
    }
