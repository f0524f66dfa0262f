"""Prometheus metrics of a rollout worker, served from its own process beside vLLM's own."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from actors.rollout.results import EpisodeResult


class WorkerMetrics:
    """What a worker reports; all names start with `archer_rollout_`."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.episodes = Counter("archer_rollout_episodes", "Episodes finished.", registry=registry)
        self.turns = Counter("archer_rollout_turns", "Turns played.", registry=registry)
        self.action_tokens = Counter("archer_rollout_action_tokens", "Tokens written in episodes.", registry=registry)
        self.invalid_actions = Counter(
            "archer_rollout_invalid_actions", "Actions that the environment could not understand.", registry=registry
        )
        self.failures = Counter(
            "archer_rollout_env_failures", "Episodes dropped because they failed.", registry=registry
        )
        self.window_truncations = Counter(
            "archer_rollout_window_truncations", "Episodes cut at the end of the model's window.", registry=registry
        )
        self.fresh_actions = Counter(
            "archer_rollout_fresh_actions", "Actions written for replayed states.", registry=registry
        )
        self.fresh_tokens = Counter(
            "archer_rollout_fresh_tokens", "Tokens written for replayed states.", registry=registry
        )
        self.playing = Gauge("archer_rollout_episodes_in_flight", "Episodes in flight.", registry=registry)
        self.version = Gauge("archer_rollout_policy_version", "Policy version of the engine.", registry=registry)
        self.stored_wait = Histogram(
            "archer_rollout_append_seconds", "Time from an episode's end until replay had it.", registry=registry
        )

    def count(self, result: EpisodeResult) -> None:
        """Add one episode's figures."""
        if result.failure is not None:
            self.failures.inc()
            return
        self.episodes.inc()
        self.turns.inc(result.turns)
        self.action_tokens.inc(result.action_tokens)
        self.invalid_actions.inc(result.invalid_actions)
        self.window_truncations.inc(result.window_truncated)

    def serve(self) -> int:
        """Start the endpoint on a free port and return the port."""
        server, _ = start_http_server(0)
        return int(server.server_port)
