"""Configuration of the replay service."""

import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from buffer.custom_resources import CustomResources
from buffer.sampling.request import View

Durability = Literal["memory", "flush", "fsync"]
Listen = Literal["auto", "loopback", "node"]
PemFile = Annotated[str, AfterValidator(lambda path: str(Path(path).expanduser()))]


class ViewLimit(BaseModel):
    """Limiter of one view: how far inserts and samples of the view may run ahead of each other."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    samples_per_insert: float | None = Field(
        None, gt=0, description="Turns sampled of the view per turn inserted; null for no limit."
    )
    min_turns: int = Field(1, ge=1, description="Turns that must be inserted before the first sample of the view.")
    error_buffer: float | None = Field(
        None,
        ge=0,
        description="Sampled turns by which either side may run ahead; null for samples_per_insert times "
        "max(min_turns, 1000).",
    )

    @property
    def allowed_error(self) -> float:
        """`error_buffer`, or its default."""
        default = (self.samples_per_insert or 0.0) * max(self.min_turns, 1000)
        return default if self.error_buffer is None else self.error_buffer

    @property
    def stops_at(self) -> int | None:
        """Inserted turns at which inserts block if nothing is sampled; None if they never block."""
        if self.samples_per_insert is None:
            return None
        return math.floor(self.allowed_error / self.samples_per_insert) + 1


class FlightTls(BaseModel):
    """TLS of the Flight endpoints. The files must exist on every node with a process of the replay or a client."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate: PemFile = Field(
        description="PEM file: the certificate of shards, replicas and learner rank 0, then its issuers."
    )
    key: PemFile = Field(description="PEM file: the private key of the certificate; only its owner may read it.")
    authority: PemFile | None = Field(
        None, description="PEM file: the certificates that clients trust; null for `certificate` itself."
    )
    name: str | None = Field(
        None,
        min_length=1,
        description="Name in the certificate that clients expect; null for the address of each node, which the "
        "certificate must then contain.",
    )


class ReplayConfig(BaseModel):
    """Settings of the replay service."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    shards: int = Field(2, ge=1, description="Number of shards, each one Ray actor with its own log.")
    capacity_turns: int = Field(
        100_000, ge=1, description="Turns held over all shards; beyond it the oldest episodes are evicted."
    )
    capacity_bytes: int | None = Field(
        None, ge=1 << 10, description="Bytes of episodes held over all shards, likewise; null for no bound."
    )
    priority_exponent: float = Field(
        0.6, ge=0, le=1, description="Exponent a of prioritised draws, in proportion to |TD error|^a; 0 is uniform."
    )
    durability: Durability = Field(
        "flush",
        description="What an acknowledged append survives: memory nothing, flush the death of the shard's process, "
        "fsync a crash of the machine.",
    )
    replication: Literal[1, 2] = Field(
        1, description="Nodes whose disks hold an acknowledged episode; with 2 the loss of one node loses no episode."
    )
    local_dir: str | None = Field(
        None,
        description="Folder on each node's own disk for the logs with replication=2, where $VARIABLES are those of the "
        "node; null for one in the node's temporary folder.",
    )
    listen: Listen = Field(
        "auto",
        description="Where shards listen: `loopback`, `node` for their node's address, or `auto`, which is loopback as "
        "long as the Ray cluster has had one node only.",
    )
    tls: FlightTls | None = Field(
        None,
        description="TLS between clients, shards and replicas, and of weights that go to engines on other hosts; null "
        "for none.",
    )
    critic: ViewLimit = Field(ViewLimit(), description="Limiter of the critic's view, which is every episode held.")
    actor: ViewLimit = Field(ViewLimit(), description="Limiter of the actor's view, the recent policy versions.")
    timeout_s: float = Field(300.0, gt=0, description="Seconds after which an append or a sample raises ReplayTimeout.")
    blocked_warning_s: float = Field(
        30.0, gt=0, description="Seconds after which the limiter logs a blocked call, with its process and the reason."
    )
    segment_bytes: int = Field(
        64 << 20, ge=1 << 10, description="Size in bytes at which a log segment is sealed and the next one begins."
    )
    cpus_per_shard: float = Field(0.01, ge=0, description="CPUs that Ray reserves for each shard and for the limiter.")
    resources: CustomResources = Field(
        {},
        description="Custom resources of Ray that each shard and the limiter reserve, which keep them on some nodes.",
    )

    @property
    def limits(self) -> dict[View, ViewLimit]:
        """Limiter of each view."""
        return {"critic": self.critic, "actor": self.actor}

    @property
    def bounds_inserts(self) -> bool:
        """Whether inserts may block."""
        return any(limit.samples_per_insert is not None for limit in self.limits.values())

    @property
    def capacity_per_shard(self) -> int:
        """Turns that one shard holds."""
        return -(-self.capacity_turns // self.shards)

    @property
    def bytes_per_shard(self) -> float:
        """Bytes of episodes that one shard holds."""
        return float("inf") if self.capacity_bytes is None else self.capacity_bytes / self.shards

    @model_validator(mode="after")
    def _refuse_unreachable_replicas(self) -> Self:
        if self.replication == 2 and self.listen == "loopback":
            raise ValueError("replication=2 needs two nodes, which cannot reach each other with listen=loopback")
        return self

    @model_validator(mode="after")
    def _refuse_half_replication(self) -> Self:
        if self.replication == 1 and self.local_dir is not None:
            raise ValueError(
                f"local_dir={self.local_dir!r} puts logs on nodes' disks, and replication=1 has no second copy; "
                "set replication=2, or leave local_dir out to keep the logs in the run's folder"
            )
        if self.replication == 2 and self.durability == "memory":
            raise ValueError("replication=2 copies the log, and durability=memory has none; set flush or fsync")
        if self.replication == 2 and self.cpus_per_shard == 0:
            raise ValueError(
                "with replication=2 Ray places shards and replicas by their CPUs; set cpus_per_shard above 0"
            )
        return self

    @model_validator(mode="after")
    def _refuse_deadlock(self) -> Self:
        for view, limit in self.limits.items():
            if limit.min_turns > self.capacity_turns:
                raise ValueError(
                    f"{view}.min_turns={limit.min_turns} exceeds capacity_turns={self.capacity_turns}, so sampling "
                    "would never start; raise capacity_turns or lower min_turns"
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
