"""Prometheus metrics of a rollout worker; its endpoint also serves vLLM's metrics."""

from __future__ import annotations

from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from actors.rollout.results import EpisodeResult


class WorkerMetrics:
    """The metrics of one worker; all names start with `archer_rollout_`."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        common: dict[str, Any] = {"namespace": "archer", "subsystem": "rollout", "registry": registry}
        self.episodes = Counter("episodes", "Finished episodes.", **common)
        self.turns = Counter("turns", "Turns of finished episodes.", **common)
        self.action_tokens = Counter("action_tokens", "Action tokens of finished episodes.", **common)
        self.invalid_actions = Counter("invalid_actions", "Actions that the environment could not parse.", **common)
        self.endless_thoughts = Counter("endless_thoughts", "Actions whose thought was cut before its end.", **common)
        self.rejected_calls = Counter("rejected_calls", "Native tool calls that could not be parsed.", **common)
        self.failures = Counter("env_failures", "Episodes dropped because they could not be played.", **common)
        self.window_truncations = Counter(
            "window_truncations", "Episodes truncated at the end of the context window.", **common
        )
        self.fresh_actions = Counter("fresh_actions", "Actions sampled at replayed states.", **common)
        self.fresh_tokens = Counter("fresh_tokens", "Tokens sampled at replayed states.", **common)
        self.playing = Gauge("episodes_in_flight", "Episodes in flight.", **common)
        self.version = Gauge("policy_version", "Policy version of the engine.", **common)
        self.append_seconds = Histogram(
            "append_seconds", "Time from the end of an episode to the acknowledgement by replay.", **common
        )

    def count(self, result: EpisodeResult) -> None:
        """Add the figures of one episode."""
        if result.failure is not None:
            self.failures.inc()
            return
        self.episodes.inc()
        self.turns.inc(result.turns)
        self.action_tokens.inc(result.action_tokens)
        self.invalid_actions.inc(result.invalid_actions)
        self.endless_thoughts.inc(result.endless_thoughts)
        self.rejected_calls.inc(result.rejected_calls)
        self.window_truncations.inc(result.window_truncated)

    def serve(self) -> int:
        """Start the HTTP endpoint on a free port and return the port."""
        server, _ = start_http_server(0)
        return int(server.server_port)
