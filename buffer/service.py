"""Starting and stopping the replay: the limiter, shards and replicas as Ray actors, and where their metrics are."""

import logging
import uuid
from pathlib import Path

import ray
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from buffer.client.ray_client import ReplayClient
from buffer.config import ReplayConfig
from buffer.errors import ReplayError, ReplayTimeout
from buffer.flight.actor_lookup import limiter_name, replica_name, shard_name
from buffer.flight.token import make_token
from buffer.limiter.actor import LimiterActor
from buffer.log.folders import begin, grow, restore_checkpoint, shard_directory
from buffer.replication.actor import ReplicaActor
from buffer.replication.log_location import refuse_away
from buffer.shard.actor import ShardActor

logger = logging.getLogger(__name__)

_METRICS_TIMEOUT_S = 5.0
_CLOSE_TIMEOUT_S = 30.0


class ReplayService:
    """The replay of a run. The actors end with the driver, or with `stop`."""

    def __init__(self, config: ReplayConfig, directory: Path, seed: int) -> None:
        self.config = config
        self.directory = directory
        self.token = make_token(directory)
        self._seed = seed
        # Actors find one another by name: Ray may not find a handle again when it restarts one of them.
        self._life = f"archer-replay-{uuid.uuid4().hex[:12]}"
        self._common = {"max_restarts": -1, "max_task_retries": -1, "num_cpus": config.cpus_per_shard}
        self.limiter = (
            ray.remote(LimiterActor)
            .options(**self._common, name=limiter_name(self._life), max_concurrency=1000)
            .remote(config, directory, self._life)
        )
        self.shards: list[ActorHandle] = []
        self.replicas: list[ActorHandle] = []
        """One of each shard where `replication` is 2."""
        self._pairs: list[PlacementGroup] = []

    @classmethod
    def start(
        cls, config: ReplayConfig, *, directory: Path, seed: int, restore: bool | Path = False
    ) -> "ReplayService":
        """Start the actors and wait until each shard answers.

        `directory` must be visible to every node that may run a shard. With `restore=False` it must hold no
        replay. `restore=True` goes on with the rows in it, to the last acknowledged one (with `replication=2` only
        after an orderly end, since a crash of the whole leaves them on nodes); sampled turns may lag by the last fifth
        of a second before a crash. `restore=CHECKPOINT` makes it exactly what the checkpoint holds: rows appended later
        are dropped, the checkpoint itself stays as it is. What is restored may have fewer shards than the config, and
        then gets new ones beside those. Raises ReplayError, LogError, ReplayTimeout.
        """
        directory = Path(directory).absolute()
        if len(nodes := [node for node in ray.nodes() if node["Alive"]]) < config.replication:
            raise ReplayError(
                f"replication=2 keeps each episode on two nodes, and this Ray cluster has {len(nodes)}; add a node, or "
                "set replication=1"
            )
        if restore is False:
            begin(directory, config.shards)
        else:
            if restore is not True:
                restore_checkpoint(Path(restore).absolute(), directory)
            for home in directory.glob("shard-*"):
                refuse_away(home)
            grow(directory, config.shards)
        service = cls(config, directory, seed)
        service._start_shards(config.shards)
        return service

    def add_shard(self) -> None:
        """Start one more shard while the replay runs: no row moves, and new episodes go to it in its share.

        It holds as many turns as each of the others may. Clients learn of it by the answers of those.
        Raises ReplayError, ReplayTimeout.
        """
        grow(self.directory, len(self.shards) + 1)
        self._start_shards(len(self.shards) + 1)
        known = [shard.count_shards.remote() for shard in self.shards]
        _, missing = ray.wait(known, num_returns=len(known), timeout=self.config.timeout_s)
        if missing:
            names = [known.index(call) for call in missing]
            raise ReplayTimeout(f"replay shards {names} did not take note of a new one; they do when they restart")

    def _start_shards(self, count: int) -> None:
        for index in range(len(self.shards), count):
            placement, replica = "SPREAD", None
            if self.config.replication == 2:
                placement, replica = self._start_replica(index)
            actor = (
                ray.remote(ShardActor)
                .options(
                    **self._common,
                    name=shard_name(self._life, index),
                    max_concurrency=4,
                    scheduling_strategy=placement,
                )
                .remote(index, self.config, shard_directory(self.directory, index), self._life, self.token, replica)
            )
            self.shards.append(actor)
        self._await_shards()

    def _start_replica(self, index: int) -> tuple[PlacementGroupSchedulingStrategy, str]:
        """Start a replica; returns where its shard goes, a node beside it, and the replica's name."""
        # Strictly, or Ray may move one of the two to the other's node when its own is lost.
        pair = ray.util.placement_group([{"CPU": self.config.cpus_per_shard}] * 2, strategy="STRICT_SPREAD")
        self._pairs.append(pair)
        if not pair.wait(self.config.timeout_s):
            raise ReplayTimeout(
                f"Ray found no room for replay shard {index} and its replica within {self.config.timeout_s:g} s; "
                "they want CPUs on two nodes (ray status)"
            )
        name = replica_name(self._life, index)
        actor = (
            ray.remote(ReplicaActor)
            .options(
                **self._common,
                name=name,
                max_concurrency=4,
                scheduling_strategy=PlacementGroupSchedulingStrategy(pair, placement_group_bundle_index=1),
            )
            .remote(index, self.config, self.directory, self._life, self.token)
        )
        self.replicas.append(actor)
        return PlacementGroupSchedulingStrategy(pair, placement_group_bundle_index=0), name

    def _await_shards(self) -> None:
        calls = [shard.address.remote() for shard in self.shards]
        _, missing = ray.wait(calls, num_returns=len(calls), timeout=self.config.timeout_s)
        if missing:
            names = [calls.index(call) for call in missing]
            raise ReplayTimeout(
                f"replay shards {names} did not start within {self.config.timeout_s:g} s; "
                "Ray may lack CPUs for them (ray status), or their log is long"
            )
        for index, call in enumerate(calls):
            try:
                ray.get(call)
            except ray.exceptions.RayActorError as error:
                # Ray puts the traceback of the constructor first and what it raised last.
                cause = [line.strip() for line in str(error).splitlines() if line.strip()][-1]
                raise ReplayError(f"replay shard {index} did not start: {cause}") from error

    def client(self, *, seed: int | None = None) -> ReplayClient:
        """A client with a random stream of its own."""
        seed = self._seed if seed is None else seed
        return ReplayClient(self.config, self.limiter, seed=seed, token=self.token)

    def metrics_targets(self) -> list[tuple[str, str, str]]:
        """(role, name, "host:port") of each process that answers now; one that is restarting is left out."""
        named = [("replay", "limiter", self.limiter)]
        named += [("replay", f"shard-{index}", shard) for index, shard in enumerate(self.shards)]
        calls = [actor.metrics_address.remote() for _, _, actor in named]
        ready, _ = ray.wait(calls, num_returns=len(calls), timeout=_METRICS_TIMEOUT_S)
        targets = []
        for (role, name, _), call in zip(named, calls, strict=True):
            if call not in ready:
                continue
            try:
                targets.append((role, name, ray.get(call)))
            except ray.exceptions.RayActorError as error:
                logger.warning("no metrics of %s %s: %s", role, name, error)
        return targets

    def stop(self) -> None:
        """Seal the logs, bring home those that lie on nodes, write the counts, end the actors."""
        patience = max(_CLOSE_TIMEOUT_S, self.config.timeout_s if self.replicas else 0.0)
        home = _close(self.shards, patience)
        # After the shards: the counts that it writes hold what they report as they close.
        _close([self.limiter], _CLOSE_TIMEOUT_S)
        if home:
            _close(self.replicas, _CLOSE_TIMEOUT_S)
        for actor in (*self.shards, *self.replicas, self.limiter):
            ray.kill(actor)
        for pair in self._pairs:
            ray.util.remove_placement_group(pair)


def _close(actors: list[ActorHandle], timeout_s: float) -> bool:
    """Whether every one of them has closed in order."""
    calls = [actor.close.remote() for actor in actors]
    done, missing = ray.wait(calls, num_returns=len(calls), timeout=timeout_s) if calls else ([], [])
    if missing:
        logger.warning("%d replay actors did not close within %g s", len(missing), timeout_s)
    failed = 0
    for call in done:
        try:
            ray.get(call)
        except (ray.exceptions.RayActorError, ray.exceptions.RayTaskError) as error:
            logger.warning("a replay actor did not close in order: %s", error)
            failed += 1
    return not missing and not failed
