"""Prometheus metrics of the shards and the limiter; each process has its own registry and endpoint."""

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from buffer.sampling.request import VIEWS

SIDES = ("insert", *VIEWS)  # The sides of the limiter: inserts, and samples of each view


def serve(registry: CollectorRegistry, host: str) -> str:
    """Serve `registry` on a free port until this process ends; returns "host:port"."""
    server, _ = start_http_server(0, addr="0.0.0.0", registry=registry)
    return f"{host}:{server.server_port}"


class ShardMetrics:
    """Metrics of one shard. Counters begin at 0 with the process, as Prometheus expects."""

    def __init__(self, shard: int) -> None:
        self.registry = CollectorRegistry()

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"archer_replay_{name}", text, ["shard"], registry=self.registry).labels(shard)

        def counter(name: str, text: str) -> Counter:
            return Counter(f"archer_replay_{name}", text, ["shard"], registry=self.registry).labels(shard)

        self.episodes = gauge("rows", "Episodes held")
        self.turns = gauge("turns", "Turns held")
        self.bytes = gauge("bytes", "Bytes of the rows held in memory and their messages")
        self.log_bytes = gauge("log_bytes", "Bytes of the write-ahead log")
        self.appended = counter("appended_rows", "Episodes appended, duplicates not counted")
        self.duplicates = counter("duplicate_rows", "Episodes ignored because their id is known")
        self.refused = counter("refused_appends", "Batches that the shard refused: bad rows or a full disk")
        self.evicted = counter("evicted_rows", "Episodes evicted")
        self.sampled = counter("sampled_draws", "Turns or episodes drawn")
        self.priorities = counter("updated_priorities", "Turns whose priority was set")
        self.torn = counter("log_torn_bytes", "Bytes cut from a torn tail of the log at start")
        self.replicas_made = counter("replicas_made", "Times that the replica was rebuilt")
        self.damaged = counter("log_damaged", "Damaged parts of the log skipped at start")


class LimiterMetrics:
    """Metrics of the limiter."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.inserted = Gauge("archer_replay_inserted_turns", "Turns ever inserted", registry=registry)
        self.drawn = Gauge("archer_replay_sampled_turns", "Turns ever sampled", ["view"], registry=registry)
        self.waiting = Gauge("archer_replay_waiting", "Calls that are blocked now", ["side"], registry=registry)
        self.blocked = Counter(
            "archer_replay_blocked_seconds", "Seconds calls were blocked", ["side"], registry=registry
        )
        self.timeouts = Counter("archer_replay_timeouts", "Blocked calls that timed out", ["side"], registry=registry)
        for view in VIEWS:
            self.drawn.labels(view)
        for side in SIDES:
            for metric in (self.waiting, self.blocked, self.timeouts):
                metric.labels(side)
