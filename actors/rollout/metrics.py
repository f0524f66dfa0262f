"""Prometheus metrics of a rollout worker; its endpoint also serves vLLM's metrics."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from actors.rollout.results import EpisodeResult


class WorkerMetrics:
    """The metrics of one worker; all names start with `archer_rollout_`."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        def counter(name: str, description: str) -> Counter:
            return Counter(f"archer_rollout_{name}", description, registry=registry)

        self.episodes = counter("episodes", "Finished episodes.")
        self.turns = counter("turns", "Turns of finished episodes.")
        self.action_tokens = counter("action_tokens", "Action tokens of finished episodes.")
        self.invalid_actions = counter("invalid_actions", "Actions that the environment could not parse.")
        self.failures = counter("env_failures", "Episodes dropped because their environment failed.")
        self.window_truncations = counter("window_truncations", "Episodes truncated at the end of the context window.")
        self.fresh_actions = counter("fresh_actions", "Actions sampled at replayed states.")
        self.fresh_tokens = counter("fresh_tokens", "Tokens sampled at replayed states.")
        self.playing = Gauge("archer_rollout_episodes_in_flight", "Episodes in flight.", registry=registry)
        self.version = Gauge("archer_rollout_policy_version", "Policy version of the engine.", registry=registry)
        self.append_seconds = Histogram(
            "archer_rollout_append_seconds",
            "Time from the end of an episode to the acknowledgement by replay.",
            registry=registry,
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
        self.window_truncations.inc(result.window_truncated)

    def serve(self) -> int:
        """Start the HTTP endpoint on a free port and return the port."""
        server, _ = start_http_server(0)
        return int(server.server_port)
