"""Prometheus metrics of a rollout worker; its endpoint also serves vLLM's metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from actors.rollout.results import EpisodeResult
from buffer.rollout_records import PlayedEpisode
from buffer.telemetry.collectors import FAST_S, SLOW_S, ArrayHistogram, BusyClock, FunctionCounter

Stage = Literal["training", "evaluation"]
STAGES: Sequence[Stage] = ("training", "evaluation")
_TURNS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100, 200, 500)
_VERSIONS = (0, 1, 2, 3, 5, 10, 20, 50, 100)
_UPDATE_PARTS = {
    "init_weight_transfer_engine": "connect",
    "fetch_weights": "fetch",
    "stage_weights": "load",
    "install_weights": "install",
    "start_weight_update": "pause",
    "update_weights": "receive",
    "finish_weight_update": "resume",
}


class WorkerMetrics:
    """The metrics of one worker; all names start with `archer_rollout_`.

    The label `stage` separates the episodes of training, which go to replay, from those of evaluations.

    Args:
        busy: runs while the engine has a request.
    """

    def __init__(self, busy: BusyClock, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry  # by default the one in which vLLM registers its metrics
        common: dict[str, Any] = {"namespace": "archer", "subsystem": "rollout", "registry": registry}
        by_stage: dict[str, Any] = {"labelnames": ["stage"], **common}
        self.episodes = Counter("episodes", "Episodes played to their end.", **by_stage)
        self.turns = Counter("turns", "Turns of these episodes.", **by_stage)
        self.action_tokens = Counter("action_tokens", "Action tokens of these episodes.", **by_stage)
        self.outcomes = Counter(
            "outcomes",
            "Episodes by outcome: success, failure, or unknown if the environment does not say.",
            ["stage", "outcome"],
            **common,
        )
        self.rewards = Counter(
            "reward",
            "Sum of the episodes' returns, of positive and of negative ones apart (a counter cannot fall).",
            ["stage", "sign"],
            **common,
        )
        self.episode_turns = Histogram("episode_turns", "Turns of an episode.", ["stage"], buckets=_TURNS, **common)
        self.invalid_actions = Counter("invalid_actions", "Actions that the environment could not parse.", **by_stage)
        self.endless_thoughts = Counter("endless_thoughts", "Actions whose thought was cut before its end.", **by_stage)
        self.rejected_calls = Counter("rejected_calls", "Native tool calls that could not be parsed.", **by_stage)
        self.failures = Counter("env_failures", "Episodes dropped because they could not be played.", **by_stage)
        self.window_truncations = Counter(
            "window_truncations", "Episodes truncated at the end of the context window.", **by_stage
        )
        self._declare_distributions(common)
        self.fresh_actions = Counter("fresh_actions", "Actions sampled at replayed states.", **common)
        self.fresh_tokens = Counter("fresh_tokens", "Tokens of these actions.", **common)
        self.playing = Gauge("episodes_in_flight", "Episodes that are being played.", **common)
        self.version = Gauge("policy_version", "Policy version of the engine.", **common)
        self.engine_busy = FunctionCounter(
            "archer_rollout_engine_busy_seconds",
            "Seconds in which the engine had at least one request; the rest of the time it was idle.",
            (),
            lambda: {(): busy.seconds},
            registry,
        )
        for stage in STAGES:
            for metric in (self.episodes, self.turns, self.action_tokens, self.failures):
                metric.labels(stage)

    def _declare_distributions(self, common: dict[str, Any]) -> None:
        self.token_staleness = ArrayHistogram(
            "archer_rollout_token_staleness_versions",
            "Policy versions by which an action token was behind the engine when its episode ended.",
            (),
            _VERSIONS,
            self.registry,
        )
        self.action_seconds = Histogram(
            "action_seconds",
            "Time from a state to its action, with the wait in the engine.",
            buckets=FAST_S,
            **common,
        )
        self.env_step_seconds = Histogram(
            "env_step_seconds", "Time of a step of the environment.", buckets=FAST_S, **common
        )
        self.append_seconds = Histogram(
            "append_seconds",
            "Time from the end of an episode to the acknowledgement by replay.",
            buckets=FAST_S,
            **common,
        )
        self.update_seconds = Histogram(
            "weight_update_seconds",
            "Time of the engine in the parts of a broadcast: connect, fetch, load, install; over NCCL and IPC pause, "
            "receive, resume.",
            ["part"],
            buckets=SLOW_S,
            **common,
        )

    def count(self, result: EpisodeResult, stage: Stage) -> None:
        """Add the figures of one episode."""
        if result.failure is not None:
            self.failures.labels(stage).inc()
            return
        self.episodes.labels(stage).inc()
        self.turns.labels(stage).inc(result.turns)
        self.action_tokens.labels(stage).inc(result.action_tokens)
        self.episode_turns.labels(stage).observe(result.turns)
        outcome = "unknown" if result.success is None else "success" if result.success else "failure"
        self.outcomes.labels(stage, outcome).inc()
        for sign, part in (("positive", max(result.ret, 0.0)), ("negative", max(-result.ret, 0.0))):
            self.rewards.labels(stage, sign).inc(part)
        self.invalid_actions.labels(stage).inc(result.invalid_actions)
        self.endless_thoughts.labels(stage).inc(result.endless_thoughts)
        self.rejected_calls.labels(stage).inc(result.rejected_calls)
        self.window_truncations.labels(stage).inc(result.window_truncated)

    def turns_of(self, played: PlayedEpisode) -> None:
        """Add the times of an episode's turns."""
        for action, step in zip(played.action_seconds, played.env_seconds, strict=True):
            self.action_seconds.observe(action)
            self.env_step_seconds.observe(step)

    def staleness(self, versions: np.ndarray, current: int) -> None:
        """Add the versions [tokens] of an episode that ended under the version `current`."""
        self.token_staleness.observe((), current - versions)

    def update(self, method: str) -> Any:
        """Return a context manager that times a method of the engine that takes weights."""
        return self.update_seconds.labels(_UPDATE_PARTS.get(method, method)).time()
