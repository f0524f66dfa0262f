"""Starting and stopping the replay: the limiter and the shards as Ray actors, and where their metrics are."""

import logging
import uuid
from pathlib import Path

import ray
from ray.actor import ActorHandle

from buffer.access import make_token
from buffer.client import ReplayClient
from buffer.config import ReplayConfig
from buffer.errors import ReplayError, ReplayTimeout
from buffer.layout import begin, grow, restore_checkpoint, shard_directory
from buffer.limiter_actor import LimiterActor, shard_name
from buffer.shard_actor import ShardActor

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
        self._prefix = f"archer-replay-{uuid.uuid4().hex[:12]}"
        self._common = {"max_restarts": -1, "max_task_retries": -1, "num_cpus": config.cpus_per_shard}
        self.limiter = (
            ray.remote(LimiterActor)
            .options(**self._common, name=self._limiter_name, max_concurrency=1000)
            .remote(config, directory, self._prefix)
        )
        self.shards: list[ActorHandle] = []

    @classmethod
    def start(
        cls, config: ReplayConfig, *, directory: Path, seed: int, restore: bool | Path = False
    ) -> "ReplayService":
        """Start the actors and wait until each shard answers.

        `directory` must be visible to every node that may run a shard. With `restore=False` it must hold no
        replay. `restore=True` goes on with the rows in it, to the last acknowledged one; sampled turns may lag by
        the last fifth of a second before a crash. `restore=CHECKPOINT` makes it exactly what the checkpoint holds:
        rows appended later are dropped, the checkpoint itself stays as it is. What is restored may have fewer
        shards than the config, and then gets new ones beside those. Raises ReplayError, LogError, ReplayTimeout.
        """
        directory = Path(directory).absolute()
        if restore is False:
            begin(directory, config.shards)
        else:
            if restore is not True:
                restore_checkpoint(Path(restore).absolute(), directory)
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

    @property
    def _limiter_name(self) -> str:
        return f"{self._prefix}-limiter"

    def _start_shards(self, count: int) -> None:
        for index in range(len(self.shards), count):
            actor = (
                ray.remote(ShardActor)
                .options(
                    **self._common,
                    name=shard_name(self._prefix, index),
                    max_concurrency=4,
                    scheduling_strategy="SPREAD",
                )
                .remote(index, self.config, shard_directory(self.directory, index), self._limiter_name, self.token)
            )
            self.shards.append(actor)
        self._await_shards()

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
        """Seal the logs, write the counts, end the actors."""
        # The limiter last: the counts that it writes hold what the shards report as they close.
        for actors in (self.shards, [self.limiter]):
            calls = [actor.close.remote() for actor in actors]
            _, missing = ray.wait(calls, num_returns=len(calls), timeout=_CLOSE_TIMEOUT_S)
            if missing:
                logger.warning("%d replay actors did not close within %g s", len(missing), _CLOSE_TIMEOUT_S)
        for actor in (*self.shards, self.limiter):
            ray.kill(actor)
