"""Records of a run: the events on the board, and the rank's Prometheus metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist

from buffer.rollout_records import CollectReport
from buffer.telemetry.collectors import BusyClock
from learner.algorithms.phases import Phase
from learner.errors import LearnerError
from learner.metrics import RankMetrics
from learner.passes.rows import Batch
from learner.protocols import Publisher

STEP_EVENT_S = 0.5
"""Least seconds between two step events, which only feed the progress display."""


class Records:
    """Publishes a run's events from rank 0, and sets the metrics of every rank.

    Args:
        earlier_s: seconds that the run took before it was resumed.
        earlier_processor_s: processor seconds of the same part of the run.
    """

    def __init__(self, board: Publisher, earlier_s: float, *, earlier_processor_s: float = 0.0) -> None:
        self._board = board
        self._is_first = dist.get_rank() == 0
        self.metrics = RankMetrics(leads=self._is_first)
        self._leading = self.metrics.leading
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
        """Publish an event: stage, phase, step, held_out, cycle, evaluation, checkpoint or unproved."""
        if self._is_first:
            self._board.publish({"kind": kind, **fields})

    def phase(self, name: str) -> BusyClock:
        """Return what counts the seconds of a part of the run, a context manager."""
        return self.metrics.phases[name]

    def step(
        self, phase: Phase, step: int, steps: int, metrics: dict[str, float], batch: Batch, seconds: float, version: int
    ) -> None:
        """Record step number `step` of `steps`, which took `seconds` under the policy version `version`."""
        self.metrics.step_seconds.labels(phase.name).observe(seconds)
        self.metrics.wait_seconds.labels(phase.name).inc(batch.waited_s)
        self.metrics.count(phase.name, batch.micro_batches, version)
        if self._leading is not None:
            self._leading.training.set(metrics)
        now = time.monotonic()
        if now - self._last_step > STEP_EVENT_S:
            self._last_step = now
            self.publish("step", phase=phase.name, step=step, steps=max(steps, step), metrics=metrics)

    def mismatch(self, gaps: np.ndarray) -> None:
        """Record `StepResult.gaps` of a step before which the policy was that of the engines."""
        if self._leading is not None:
            self._leading.mismatch.add((), gaps[:-1], float(gaps[-1]))

    def cycle(self, cycle: int, metrics: dict[str, float]) -> None:
        """Record a finished cycle."""
        self.publish("cycle", cycle=cycle, metrics=metrics)

    def held_out(self, step: int, losses: dict[str, float]) -> None:
        """Record the loss on held-out demonstrations after `step` steps of cloning."""
        self.diagnosis(losses)
        self.publish("held_out", step=step, metrics=losses)

    def diagnosis(self, metrics: dict[str, float]) -> None:
        """Set the metrics of a diagnosis; the cycle that it belongs to publishes them."""
        if self._leading is not None:
            self._leading.training.set(metrics)

    def begin(self, pass_gap: float | None, tolerance: float) -> None:
        """Record the gap of the proof of the learner's passes, and the largest gap that proofs of broadcasts accept."""
        if self._leading is not None:
            self._leading.pass_gap.set(pass_gap or 0.0)
            self._leading.proof_tolerance.set(tolerance)

    def restarted(self, times: int) -> None:
        """Record how often the ranks were restarted after the death of one."""
        if self._leading is not None:
            self._leading.restarts = times

    def proof(self, gap: float) -> None:
        """Record the largest gap of a proof."""
        if self._leading is not None:
            self._leading.proof_gap.set(gap)

    def sent(self, version: int) -> None:
        """Record that the engines have the weights of a version."""
        if self._leading is not None:
            self._leading.policy_version.set(version)

    def broadcast(self, seconds: float, parts: Mapping[str, float], attempts: int) -> None:
        """Record a proved broadcast: the learner's seconds, and those of its parts over all attempts."""
        if self._leading is None:
            return
        self._leading.broadcast_seconds.observe(seconds)
        self._leading.broadcast_attempts.inc(attempts)
        for part, of_part in parts.items():
            self._leading.broadcast_parts.labels(part).inc(of_part)

    def checkpoint(self, path: Path, seconds: float, state: dict[str, Any]) -> None:
        """Record a checkpoint that was written to `path` in `seconds`. Called on rank 0."""
        assert self._leading is not None
        self._leading.checkpoint_seconds.observe(seconds)
        self.publish("checkpoint", path=str(path), seconds=seconds, state=state)

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
