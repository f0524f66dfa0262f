"""Prometheus metrics of the learner's ranks and of the critic that chooses actions at play.

Every rank counts its own work. What is the same on every rank, such as a loss or a broadcast, only rank 0 serves, so
that a sum over the ranks is right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from prometheus_client import Counter, Gauge, Histogram

from buffer.telemetry.collectors import FAST_S, SLOW_S, ArrayHistogram, BusyClock, FunctionCounter, process_registry
from learner.engine.sums import GAP_BOUNDS
from learner.passes.rows import Row
from learner.training_metrics import TrainingMetrics

_VERSIONS = (0, 1, 2, 3, 5, 10, 20, 50, 100)


class RankMetrics:
    """The metrics of one rank; all names start with `archer_learner_`. `leading` has those that only rank 0 serves."""

    def __init__(self, *, leads: bool) -> None:
        self.registry = registry = process_registry()
        common: dict[str, Any] = {"namespace": "archer", "subsystem": "learner", "registry": registry}
        self.step_seconds = Histogram(
            "step_seconds",
            "Time of a gradient step, without its batch.",
            ["phase"],
            buckets=SLOW_S,
            **common,
        )
        self.wait_seconds = Counter(
            "wait_seconds", "Time that rank 0 waited for the fresh actions of a step.", ["phase"], **common
        )
        self.samples = Counter("samples", "Samples (turns) of this rank in gradient steps.", ["phase"], **common)
        self.unwritten = Counter(
            "unwritten_samples", "Samples that no policy wrote: of demonstrations and imports.", ["phase"], **common
        )
        self.staleness = ArrayHistogram(
            "archer_learner_sample_staleness_versions",
            "Policy versions by which the tokens of a sample's episode are behind the policy, on average.",
            ("phase",),
            _VERSIONS,
            registry,
        )
        self.busy = BusyClock()
        self.busy_seconds = FunctionCounter(
            "archer_learner_busy_seconds",
            "Seconds in gradient steps; the rest of the time the rank waited or did other work.",
            (),
            lambda: {(): self.busy.seconds},
            registry,
        )
        self.phases: dict[str, BusyClock] = defaultdict(BusyClock)
        self.phase_seconds = FunctionCounter(
            "archer_learner_phase_seconds",
            "Seconds in each part of a run: clone, rollout, diagnosis, the phases, broadcast, evaluation, checkpoint.",
            ("phase",),
            lambda: {(phase,): clock.seconds for phase, clock in self.phases.copy().items()},
            registry,
        )
        self.leading = LeadingMetrics(common) if leads else None

    def count(self, phase: str, micro_batches: Sequence[Sequence[Row]], version: int) -> None:
        """Count the samples of this rank in one step, and how far their episodes are behind policy `version`."""
        rows = [row for of_micro_batch in micro_batches for row in of_micro_batch]
        turns = np.array([len(row.turns) for row in rows])
        # No policy wrote the tokens of version -1.
        versions = np.array([row.episode.versions.mean() if len(row.episode.versions) else -1.0 for row in rows])
        written = versions >= 0
        self.samples.labels(phase).inc(turns.sum())
        self.unwritten.labels(phase).inc(turns[~written].sum())
        self.staleness.observe((phase,), version - versions[written], turns[written])


class LeadingMetrics:
    """The metrics that only rank 0 serves."""

    def __init__(self, common: dict[str, Any]) -> None:
        self.training = TrainingMetrics(common["registry"])
        self.restarts = 0
        self.restarts_total = FunctionCounter(
            "archer_learner_restarts",
            "Restarts of the ranks after the death of one, in this run of the driver.",
            (),
            lambda: {(): self.restarts},
            common["registry"],
        )
        self.policy_version = Gauge("policy_version", "Policy version of the last broadcast.", **common)
        self.broadcast_seconds = Histogram(
            "broadcast_seconds",
            "Time that a broadcast kept the learner; of the proof, what the learner waited for it.",
            buckets=SLOW_S,
            **common,
        )
        self.broadcast_parts = Counter(
            "broadcast_part_seconds",
            "Seconds of broadcasts by part: expect (the learner's log-probabilities), connect, transfer, prove (the "
            "engines' answers, beside the rollouts), and wait (for the rest of them).",
            ["part"],
            **common,
        )
        self.broadcast_attempts = Counter(
            "broadcast_attempts", "Attempts of broadcasts; more than broadcasts if engines died meanwhile.", **common
        )
        self.proof_gap = Gauge(
            "proof_gap_nats", "Largest gap between log-probabilities of engine and learner in the last proof.", **common
        )
        self.proof_tolerance = Gauge("proof_tolerance_nats", "Largest gap that a proof accepts.", **common)
        self.pass_gap = Gauge(
            "pass_gap_nats", "Largest gap between the learner's passes and the model's own, at the start.", **common
        )
        self.mismatch = ArrayHistogram(
            "archer_learner_logprob_mismatch_nats",
            "Absolute difference between engine and learner in the log-probability of a sampled token of the current "
            "policy, before a step has changed the policy.",
            (),
            GAP_BOUNDS,
            common["registry"],
        )
        self.checkpoint_seconds = Histogram(
            "checkpoint_seconds", "Time of writing a checkpoint.", buckets=SLOW_S, **common
        )


class ScorerMetrics:
    """The metrics of the critic that chooses actions at play; all names start with `archer_scorer_`."""

    def __init__(self) -> None:
        self.registry = process_registry()
        common: dict[str, Any] = {"namespace": "archer", "subsystem": "scorer", "registry": self.registry}
        self.states = Counter("states", "States at which an action was chosen.", **common)
        self.choose_seconds = Histogram("choose_seconds", "Time of one request.", buckets=FAST_S, **common)
        self.loads = Counter("loads", "Times that the critic's weights were replaced.", **common)
