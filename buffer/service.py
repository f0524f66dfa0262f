"""The replay service: it starts and stops the limiter, the shards and their replicas as Ray actors."""

import logging
import uuid
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle

from buffer.client.ray_client import ReplayClient
from buffer.config import ReplayConfig
from buffer.errors import ReplayError, ReplayTimeout
from buffer.flight.actor_lookup import actor_name
from buffer.flight.discovery_files import make_token
from buffer.flight.tls import read_identity, read_trust
from buffer.limiter.actor import LimiterActor
from buffer.log.folders import begin, grow, restore_checkpoint, shard_directory
from buffer.replication.log_location import refuse_away
from buffer.replication.replicas import Replicas, check_nodes
from buffer.shard.actor import ShardActor
from buffer.telemetry.endpoint import Exposure, Process

logger = logging.getLogger(__name__)

_METRICS_TIMEOUT_S = 2.0
_CLOSE_TIMEOUT_S = 30.0


class ReplayService:
    """The replay of a run. Its actors end with the driver, or with `stop`."""

    def __init__(self, config: ReplayConfig, directory: Path, seed: int, exposure: Exposure) -> None:
        """Start the limiter. Use `start` to create a service."""
        self.config = config
        self.directory = directory
        self.token = make_token(directory, None if config.tls is None else read_trust(config.tls))
        self._seed = seed
        self._exposure = exposure
        self._name = f"archer-replay-{uuid.uuid4().hex[:12]}"  # Unique; the names of all actors begin with it
        self._options: dict[str, Any] = {
            "max_restarts": -1,
            "max_task_retries": -1,
            "num_cpus": config.cpus_per_shard,
            "resources": config.resources or None,
            "max_concurrency": 4,
        }
        self.limiter = (
            ray.remote(LimiterActor)
            .options(**{**self._options, "max_concurrency": 1000}, name=actor_name(self._name, "limiter"))
            .remote(config, directory, self._name, exposure)
        )
        self.shards: list[ActorHandle] = []
        self.replicas = Replicas(config, directory, self._name, self.token, exposure)

    @classmethod
    def start(
        cls,
        config: ReplayConfig,
        *,
        directory: Path,
        seed: int,
        restore: bool | Path = False,
        start_timeout_s: float | None = None,
        exposure: Exposure | None = None,
    ) -> "ReplayService":
        """Start the actors and wait until each shard answers.

        `directory` is the replay's folder, visible to every node that may run a shard. With `restore=False` it must
        hold no replay. `restore=True` continues with the rows in it, up to the last acknowledged one (with
        `replication=2` only after an orderly end, because a crash leaves the rows on nodes); the count of sampled turns
        may miss the last 0.2 s before a crash. The path of a checkpoint makes `directory` equal to that checkpoint,
        which does not change. If the config has more shards than the restored replay, new ones are added. The wait ends
        after `start_timeout_s`, by default `replay.timeout_s`. `exposure` says where the metrics endpoints listen.
        Raises ReplayError, LogError, ReplayTimeout.
        """
        directory = Path(directory).absolute()
        if config.replication == 2:
            check_nodes()
        if config.tls is not None:
            read_identity(config.tls)  # a wrong file must fail here, and not in an actor that Ray restarts for ever
        if restore is False:
            begin(directory, config.shards)
        else:
            if restore is not True:
                restore_checkpoint(Path(restore).absolute(), directory)
            refuse_away(directory)
            grow(directory, config.shards)
        service = cls(config, directory, seed, exposure or Exposure())
        service._start_shards(config.shards, start_timeout_s or config.timeout_s)
        return service

    def add_shard(self) -> None:
        """Start one more shard while the replay runs: no row moves, and the new shard receives its share of new ids.

        It holds as many turns as each of the others. Clients learn of it from the answers of the others. Raises
        ReplayError, ReplayTimeout.
        """
        grow(self.directory, len(self.shards) + 1)
        self._start_shards(len(self.shards) + 1, self.config.timeout_s)
        calls = [shard.count_shards.remote() for shard in self.shards]
        if missing := _unanswered(calls, self.config.timeout_s):
            raise ReplayTimeout(f"replay shards {missing} did not note the new shard; they do when they restart")

    def _start_shards(self, count: int, timeout_s: float) -> None:
        for index in range(len(self.shards), count):
            folder = shard_directory(self.directory, index)
            strategy: Any = "SPREAD"
            if self.config.replication == 2:
                strategy = self.replicas.start(index, self._options)
            actor = (
                ray.remote(ShardActor)
                .options(**self._options, name=actor_name(self._name, "shard", index), scheduling_strategy=strategy)
                .remote(index, self.config, folder, self._name, self.token, self._exposure)
            )
            self.shards.append(actor)
        calls = [shard.address.remote() for shard in self.shards]
        if missing := _unanswered(calls, timeout_s):
            raise ReplayTimeout(
                f"replay shards {missing} did not start within {timeout_s:g} s; Ray may lack the "
                f"{self.config.cpus_per_shard:g} CPUs of each (ray status), or their log is long: raise "
                "cluster.start_timeout_s"
            )
        for index, call in enumerate(calls):
            try:
                ray.get(call)
            except ray.exceptions.RayActorError as error:
                # Ray's text is the traceback of the constructor; its last line is the error.
                cause = [line.strip() for line in str(error).splitlines() if line.strip()][-1]
                raise ReplayError(f"replay shard {index} did not start: {cause}") from error

    def client(self, *, seed: int | None = None) -> ReplayClient:
        """Return a client with its own random generator."""
        seed = self._seed if seed is None else seed
        return ReplayClient(self.config, self.limiter, seed=seed, token=self.token)

    def processes(self) -> list[Process]:
        """Return each process of the service; one that does not answer in time has no address."""
        named = {"limiter": self.limiter}
        for role, actors in (("shard", self.shards), ("replica", self.replicas.actors)):
            named |= {f"{role}-{index}": actor for index, actor in enumerate(actors)}
        calls = {name: actor.metrics_address.remote() for name, actor in named.items()}
        answers = _answers(calls, _METRICS_TIMEOUT_S, level=logging.DEBUG)
        return [Process(name.split("-")[0], name, answers.get(name, "")) for name in named]

    def stop(self) -> None:
        """Seal the logs, move them back from nodes' disks, write the counts, end the actors."""
        patience = max(_CLOSE_TIMEOUT_S, self.config.timeout_s if self.replicas.actors else 0.0)
        closed = _close("shard", self.shards, patience)
        # After the shards, whose last reports belong to the counts that the limiter writes.
        _close("limiter", [self.limiter], _CLOSE_TIMEOUT_S)
        if closed:
            _close("replica", self.replicas.actors, _CLOSE_TIMEOUT_S)
        for actor in (*self.shards, self.limiter):
            ray.kill(actor)
        self.replicas.remove()


def _unanswered(calls: list[ray.ObjectRef], timeout_s: float) -> list[int]:
    """Return the positions of the calls that have no answer within the timeout."""
    _, missing = ray.wait(calls, num_returns=len(calls), timeout=timeout_s) if calls else ([], [])
    return [calls.index(call) for call in missing]


def _answers(calls: dict[str, ray.ObjectRef], timeout_s: float, level: int = logging.WARNING) -> dict[str, Any]:
    """Return the answers by name; log at `level` each call that failed, or has no answer within the timeout."""
    missing = [list(calls)[place] for place in _unanswered(list(calls.values()), timeout_s)]
    answers = {}
    for name, call in calls.items():
        if name in missing:
            logger.log(level, "replay %s did not answer within %g s", name, timeout_s)
            continue
        try:
            answers[name] = ray.get(call)
        except (ray.exceptions.RayActorError, ray.exceptions.RayTaskError) as error:
            logger.log(level, "replay %s failed: %s", name, error)
    return answers


def _close(role: str, actors: list[ActorHandle], timeout_s: float) -> bool:
    """Close the actors; returns whether all of them closed in order."""
    calls = {f"{role}-{index}": actor.close.remote() for index, actor in enumerate(actors)}
    return len(_answers(calls, timeout_s)) == len(calls)
