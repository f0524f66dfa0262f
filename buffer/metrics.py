"""Prometheus metrics of shards and replicas. Each process has its own registry."""

from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from buffer.telemetry.collectors import FAST_S, process_registry


class ShardMetrics:
    """Metrics of one shard; all names start with `archer_replay_`. Counters begin at 0 with the process."""

    def __init__(self) -> None:
        self.registry = process_registry()
        common: dict[str, Any] = {"namespace": "archer", "subsystem": "replay", "registry": self.registry}
        self.episodes = Gauge("episodes", "Episodes held.", **common)
        self.turns = Gauge("turns", "Turns held.", **common)
        self.capacity_turns = Gauge("capacity_turns", "Turns that the shard may hold.", **common)
        self.bytes = Gauge("resident_bytes", "Bytes of the episodes held in memory, with their messages.", **common)
        self.log_bytes = Gauge("log_bytes", "Bytes of the write-ahead log.", **common)
        self.oldest = Gauge(
            "oldest_episode_timestamp_seconds",
            "Unix time at which the oldest episode that is held was created; 0 if none is held.",
            **common,
        )
        self.appended = Counter("appended_episodes", "Episodes appended, without duplicates.", **common)
        self.appended_turns = Counter("appended_turns", "Turns of the episodes appended.", **common)
        self.append_seconds = Histogram(
            "append_seconds", "Time of an append in the shard, with its write to the log.", buckets=FAST_S, **common
        )
        self.duplicates = Counter("duplicate_episodes", "Episodes ignored because their id is known.", **common)
        self.refused = Counter("refused_appends", "Batches that were refused: bad rows or a full disk.", **common)
        self.evicted = Counter("evicted_episodes", "Episodes evicted.", **common)
        self.sampled = Counter("draws", "Turns or episodes drawn.", **common)
        self.priorities = Counter("updated_priorities", "Turns whose priority was set.", **common)
        self.torn = Counter("log_torn_bytes", "Bytes cut from a torn tail of the log at the start.", **common)
        self.damaged = Counter("log_damaged_parts", "Damaged parts of the log skipped at the start.", **common)
        self.replicas_made = Counter("replica_rebuilds", "Times that the replica was rebuilt.", **common)


class ReplicaMetrics:
    """Metrics of one replica; all names start with `archer_replica_`."""

    def __init__(self) -> None:
        self.registry = process_registry()
        common: dict[str, Any] = {"namespace": "archer", "subsystem": "replica", "registry": self.registry}
        self.bytes = Gauge("log_bytes", "Bytes of the copy of the shard's log.", **common)
        self.epoch = Gauge("epoch", "Epoch of the copy; it rises when one side continues from the other's.", **common)
