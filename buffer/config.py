"""Settings of the replay service."""

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from buffer.sampling.row_filter import View

Durability = Literal["memory", "flush", "fsync"]


class ViewLimit(BaseModel):
    """How far inserting and the sampling of one view may run ahead of each other."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples_per_insert: float | None = Field(
        None,
        gt=0,
        description="Turns sampled of the view per turn inserted that the limiter holds to; null for no limit.",
    )
    min_turns: int = Field(
        1, ge=1, description="Turns that must have been inserted before the first sample of the view is given out."
    )
    error_buffer: float | None = Field(
        None,
        ge=0,
        description="Sampled turns by which either side may run ahead; null for samples_per_insert times "
        "max(min_turns, 1000).",
    )

    @property
    def allowed_error(self) -> float:
        """`error_buffer`, or its default where it is null."""
        if self.error_buffer is not None:
            return self.error_buffer
        return (self.samples_per_insert or 0.0) * max(self.min_turns, 1000)

    @property
    def stops_at(self) -> int | None:
        """Turns at which inserts stop before anything is sampled, the first whose samples_per_insert pass the error."""
        if self.samples_per_insert is None:
            return None
        return math.floor(self.allowed_error / self.samples_per_insert) + 1


class ReplayConfig(BaseModel):
    """How many shards hold how much, how safe an append is, and which side waits for which."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shards: int = Field(2, ge=1, description="Number of shards, each one Ray actor with its own log.")
    capacity_turns: int = Field(
        100_000, ge=1, description="Turns held over all shards before the oldest episodes are evicted."
    )
    capacity_bytes: int | None = Field(
        None,
        ge=1 << 10,
        description="Bytes of episodes held over all shards before the oldest are evicted; null for no such bound.",
    )
    priority_exponent: float = Field(
        0.6,
        ge=0,
        le=1,
        description="Exponent a of prioritised draws, in proportion to |TD error|^a; 0 draws uniformly.",
    )
    durability: Durability = Field(
        "flush",
        description="What an acknowledged append survives: memory nothing, flush the shard's death, "
        "fsync the machine's.",
    )
    replication: Literal[1, 2] = Field(
        1,
        description="Nodes on whose disks an acknowledged episode lies; with 2 the loss of a node loses none of them.",
    )
    local_dir: str | None = Field(
        None,
        description="Folder on each node's own disk for the logs of a replicated replay, $VARIABLES as the node sets "
        "them; null for one in the node's temporary folder.",
    )
    critic: ViewLimit = Field(
        ViewLimit(), description="Limiter of the critic's view, which is everything that replay holds."
    )
    actor: ViewLimit = Field(
        ViewLimit(), description="Limiter of the actor's view, the episodes of a window of policy versions."
    )
    timeout_s: float = Field(
        300.0, gt=0, description="Seconds after which a blocked append or sample gives up with ReplayTimeout."
    )
    blocked_warning_s: float = Field(
        30.0, gt=0, description="Seconds a side may be blocked before the limiter logs who waits for whom."
    )
    segment_bytes: int = Field(
        64 << 20, ge=1 << 10, description="Size in bytes at which a log segment is sealed and a new one begun."
    )
    cpus_per_shard: float = Field(0.01, ge=0, description="CPUs that Ray reserves for each shard and for the limiter.")

    @property
    def limits(self) -> dict[View, ViewLimit]:
        """The limiter of each view."""
        return {"critic": self.critic, "actor": self.actor}

    @property
    def bounds_inserts(self) -> bool:
        """Whether inserts may have to wait for sampling."""
        return any(limit.samples_per_insert is not None for limit in self.limits.values())

    @property
    def capacity_per_shard(self) -> int:
        """Turns one shard holds."""
        return -(-self.capacity_turns // self.shards)

    @property
    def bytes_per_shard(self) -> float:
        """Bytes of episodes that one shard holds."""
        return float("inf") if self.capacity_bytes is None else self.capacity_bytes / self.shards

    @model_validator(mode="after")
    def _refuse_half_replication(self) -> Self:
        if self.replication == 1:
            if self.local_dir is not None:
                raise ValueError(
                    f"local_dir={self.local_dir!r} keeps logs on their nodes alone, and replication=1 has no second "
                    "copy; set replication=2, or leave local_dir out and the logs are in the run's folder"
                )
            return self
        if self.durability == "memory":
            raise ValueError("replication=2 copies the log, and durability=memory keeps none; set flush or fsync")
        if self.cpus_per_shard == 0:
            raise ValueError(
                "replication=2 has Ray place shards and replicas by their CPUs; set cpus_per_shard above 0"
            )
        return self

    @model_validator(mode="after")
    def _refuse_deadlock(self) -> Self:
        for view, limit in self.limits.items():
            if limit.min_turns > self.capacity_turns:
                raise ValueError(
                    f"{view}.min_turns={limit.min_turns} exceeds capacity_turns={self.capacity_turns}: the replay "
                    "could never hold what sampling waits for; raise capacity_turns or lower min_turns"
                )
        for blocking, limit in self.limits.items():
            for waiting, other in self.limits.items():
                stops_at, ratio = limit.stops_at, limit.samples_per_insert
                if stops_at is None or ratio is None or stops_at >= other.min_turns:
                    continue
                raise ValueError(
                    f"this limiter would deadlock: inserts stop at {stops_at} turns ({blocking}.error_buffer="
                    f"{limit.allowed_error:g}, {blocking}.samples_per_insert={ratio:g}) while sampling waits for "
                    f"{waiting}.min_turns={other.min_turns}; raise {blocking}.error_buffer to "
                    f"{other.min_turns * ratio:g} or more, or lower {waiting}.min_turns"
                )
        return self
