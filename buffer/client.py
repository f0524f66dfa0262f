"""The client of the replay: one object in each process that writes or samples.

Episodes go to the shard that a hash of their id names, so that a repeated append finds its first copy. Samples are
split over the shards in proportion to what each holds, so that a turn is equally likely wherever it lives. Requests
carry their own seed: the same state of the client and of the shards gives the same sample. What a view or the best
share of it bounds is settled here, over all shards, and goes to each of them as one filter of its rows.
"""

import json
import os
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import ray
from ray.actor import ActorHandle

from buffer.config import ReplayConfig
from buffer.connection import Connection
from buffer.errors import EmptyViewError, LogError, ReplayError, ReplayTimeout
from buffer.layout import finish_checkpoint, prepare_checkpoint, shard_directory
from buffer.sample import Sample, Stats
from buffer.schema import Episode, validate
from buffer.store import Unit
from buffer.view import RowFilter, View, check_share, least_of_best
from buffer.wire import to_wire

_MARGIN_S = 10.0
_T = TypeVar("_T")
_Result = TypeVar("_Result")


def shard_of(episode_id: str, shards: int) -> int:
    """The shard an episode lives in; the same in every process and version."""
    return zlib.crc32(episode_id.encode()) % shards


class ReplayClient:
    """Append, sample, wait, count, checkpoint. Picklable; thread-safe but for `state_dict` and `sample` order."""

    def __init__(self, config: ReplayConfig, limiter: ActorHandle, shards: Sequence[ActorHandle], *, seed: int) -> None:
        self.config = config
        self._limiter = limiter
        self._shards = list(shards)
        self._rng = np.random.default_rng(seed)
        self._open()

    def _open(self) -> None:
        self._who = f"process {os.getpid()} on {ray.util.get_node_ip_address()}"
        self._connections = [Connection(index, actor) for index, actor in enumerate(self._shards)]
        self._threads = ThreadPoolExecutor(max(1, len(self._shards)), thread_name_prefix="replay")

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("config", "_limiter", "_shards", "_rng")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def append(self, batch: pa.RecordBatch, *, limited: bool = True) -> int:
        """Store rows of `EPISODE_SCHEMA`; returns how many were new, once all are as durable as configured.

        Waits while the limiter holds inserts back, unless `limited` is false (demonstrations). A shard that
        restarts is waited for; where its acknowledgement was lost the rows count as known the second time.
        Raises SchemaError before anything is stored, DiskFullError where a shard has no room (rows of other
        shards are stored; append the batch again once there is room), ReplayTimeout.
        """
        validate(batch)
        deadline = time.monotonic() + self.config.timeout_s
        if limited and self.config.samples_per_insert is not None:
            self._ask(self._limiter.await_insert, deadline)
        wire = to_wire(batch)
        homes = np.array(
            [shard_of(name, len(self._shards)) for name in batch.column("episode_id").to_pylist()], dtype=int
        )
        used = np.unique(homes)

        def put(shard: int) -> int:
            # A batch may be a slice of a larger one: only taking rows leaves the rest behind.
            part = wire if len(used) == 1 else wire.take(pa.array(np.flatnonzero(homes == shard)))
            return self._connections[shard].append(part, deadline)

        return sum(self._each(put, [int(shard) for shard in used]))

    def sample(
        self,
        n: int,
        *,
        view: View = "critic",
        unit: Unit = "turn",
        min_version: int | None = None,
        best: float | None = None,
        timeout_s: float | None = None,
        messages: bool = False,
    ) -> Sample:
        """Draw n turns or episodes uniformly, with replacement, in random order.

        View `critic` is everything; view `actor` the episodes all of whose tokens have a version of at least
        `min_version`, never demonstrations. With `best` in (0, 1] only that share of the view's episodes is drawn
        from, over all shards the highest by undiscounted return; all that tie with the last of them count too, so
        the share drawn from may be larger. Episodes come without `messages` unless asked for: learners do not
        read them. Raises EmptyViewError where the view holds nothing, ReplayTimeout where the limiter or a
        shard keeps the caller waiting.
        """
        if n < 1:
            raise ValueError(f"sample of {n}; draw at least 1")
        check_share(best)
        only = RowFilter.of_view(view, min_version)
        deadline = self._deadline(timeout_s)
        charge = n if unit == "turn" else 0
        held = self._ask(self._limiter.await_sample, deadline, charge)["held"]
        drawn = False
        try:
            sample = self._draw(n, unit, only, best, messages, held, deadline)
            drawn = True
        finally:
            if not drawn:
                # Waited for, so that whoever catches the error sees right counts; never raises over that error.
                ray.wait([self._limiter.count_sampled.remote(-charge)], timeout=_MARGIN_S)
        if unit == "episode":
            self._count_sampled(sum(sample.distinct[row].turns for row in sample.rows))
        return sample

    def sweep(
        self,
        *,
        view: View = "critic",
        min_version: int | None = None,
        timeout_s: float | None = None,
        messages: bool = False,
    ) -> list[Episode]:
        """Every episode of the view exactly once, ordered by (seed, episode_id) wherever and whenever it came.

        Views, waits and errors are those of `sample`; every turn counts as sampled once. Each shard is exact at
        its own moment: episodes appended or evicted meanwhile may or may not be in it.
        """
        only = RowFilter.of_view(view, min_version)
        deadline = self._deadline(timeout_s)
        self._ask(self._limiter.await_sample, deadline, 0)
        request = {"only": only.as_dict(), "messages": messages, "draw": None}
        shards = range(len(self._shards))
        swept = Sample.joined(self._each(lambda shard: self._connections[shard].draw(request, deadline), shards))
        if len(swept) == 0:
            raise _empty(only)
        self._count_sampled(sum(episode.turns for episode in swept.distinct))
        return sorted(swept.distinct, key=lambda episode: (episode.seed, episode.episode_id))

    def _draw(
        self,
        n: int,
        unit: Unit,
        view: RowFilter,
        best: float | None,
        messages: bool,
        held: dict[int, tuple[int, int]] | None,
        deadline: float,
    ) -> Sample:
        column = 1 if unit == "turn" else 0
        shards = range(len(self._shards))
        only = view
        # The limiter's counts save a round trip, but know of no filter and may name a shard that lost its rows.
        if best is not None:
            only, held = self._best_of(view, best, deadline)
        elif held is None or not only.everything:
            counts = self._each(lambda shard: self._connections[shard].counts(only, deadline), shards)
            held = dict(enumerate(counts))
        weights = np.array([held.get(shard, (0, 0))[column] for shard in shards], dtype=np.float64)
        if weights.sum() == 0:
            raise _empty(only)
        split = self._rng.multinomial(n, weights / weights.sum())
        seeds = self._rng.integers(0, 2**63, size=len(self._shards))
        order = self._rng.permutation(n)
        used = [shard for shard in shards if split[shard]]

        def get(shard: int) -> tuple[list[pa.RecordBatch], np.ndarray, np.ndarray]:
            draw = {"count": int(split[shard]), "unit": unit, "seed": int(seeds[shard])}
            request = {"only": only.as_dict(), "messages": messages, "draw": draw}
            return self._connections[shard].draw(request, deadline)

        try:
            return Sample.joined(self._each(get, used)).reordered(order)
        except EmptyViewError:
            if time.monotonic() > deadline:
                raise
            return self._draw(n, unit, view, best, messages, None, deadline)

    def _best_of(self, view: RowFilter, best: float, deadline: float) -> tuple[RowFilter, dict[int, tuple[int, int]]]:
        """The filter of the best share of a view, and (episodes, turns) of each shard that pass it.

        Every call asks the shards: a bound kept from the last one would miss what was appended since.
        """
        shards = range(len(self._shards))
        parts = self._each(lambda shard: self._connections[shard].returns(view, deadline), shards)
        returns = np.concatenate([part for part, _ in parts])
        if len(returns) == 0:
            return view, {}
        least = least_of_best(returns, best)
        held = {
            shard: (int(np.sum(part >= least)), int(turns[part >= least].sum()))
            for shard, (part, turns) in enumerate(parts)
        }
        return replace(view, min_return=least), held

    def _count_sampled(self, turns: int) -> None:
        ray.get(self._limiter.count_sampled.remote(turns), timeout=self.config.timeout_s)

    def wait_for(self, *, episodes: int, timeout_s: float) -> Stats:
        """Block until so many episodes were ever inserted. Raises ReplayTimeout that names the count reached."""
        self._ask(self._limiter.wait_for, time.monotonic() + timeout_s, episodes)
        return self.stats()

    def stats(self) -> Stats:
        """Counts over all shards. Raises ReplayTimeout where one does not answer."""
        shards = self._gather([shard.stats.remote() for shard in self._shards], "stats")
        (totals,) = self._gather([self._limiter.stats.remote()], "stats")
        episodes = sum(shard["episodes"] for shard in shards)
        return Stats(
            episodes=episodes,
            turns=sum(shard["turns"] for shard in shards),
            bytes=sum(shard["bytes"] for shard in shards),
            evicted=totals["inserted_episodes"] - episodes,
            **totals,
        )

    def checkpoint(self, directory: Path) -> None:
        """Write rows, order and counts as they are now under `directory`, which must be new or unfinished.

        Segments are hard links where the file system allows. Each shard is exact at its own moment; without
        writers meanwhile, the whole is. Restore with `ReplayService.start(..., restore=directory)`.
        """
        directory = Path(directory).absolute()
        prepare_checkpoint(directory)
        calls = [shard.checkpoint.remote(shard_directory(directory, index)) for index, shard in enumerate(self._shards)]
        counts = self._gather(calls, "checkpoint")
        self._gather([self._limiter.checkpoint.remote(directory)], "checkpoint")
        finish_checkpoint(directory, counts)

    def state_dict(self) -> dict[str, Any]:
        """The random stream, for JSON or torch.save."""
        return {"rng": json.dumps(self._rng.bit_generator.state)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the random stream of `state_dict`."""
        self._rng.bit_generator.state = json.loads(state["rng"])

    def close(self) -> None:
        """Close connections and threads."""
        for connection in self._connections:
            connection.close()
        self._threads.shutdown(wait=False)

    def _each(self, function: Callable[[_T], _Result], items: Sequence[_T]) -> list[_Result]:
        """The function over the items, at once; every call has ended when this returns or raises."""
        if len(items) == 1:
            return [function(items[0])]
        futures = [self._threads.submit(function, item) for item in items]
        errors = [error for future in futures if (error := future.exception()) is not None]
        if errors:
            raise errors[0]
        return [future.result() for future in futures]

    def _deadline(self, timeout_s: float | None) -> float:
        return time.monotonic() + (self.config.timeout_s if timeout_s is None else timeout_s)

    def _ask(self, method: Any, deadline: float, *arguments: Any) -> dict[str, Any]:
        """A waiting call of the limiter; its refusal becomes ReplayTimeout."""
        left = max(0.0, deadline - time.monotonic())
        who = self._who
        try:
            # The limiter times out by itself and says why; the margin is for an actor that is gone.
            answer = ray.get(method.remote(*arguments, left, who), timeout=left + _MARGIN_S)
        except ray.exceptions.ActorDiedError as error:
            raise ReplayError("the replay limiter is gone for good: the service was stopped") from error
        except (ray.exceptions.GetTimeoutError, ray.exceptions.RayActorError) as error:
            raise ReplayTimeout(f"{who} waits for the replay limiter, which does not answer: {error}") from error
        if "error" in answer:
            raise ReplayTimeout(answer["error"])
        return answer

    def _gather(self, calls: list[Any], what: str) -> list[Any]:
        """The answers of all shards (or the limiter). Raises ReplayTimeout naming those that did not answer."""
        _, missing = ray.wait(calls, num_returns=len(calls), timeout=self.config.timeout_s)
        if missing:
            names = [calls.index(call) for call in missing]
            raise ReplayTimeout(f"{what} waits for replay shards {names} of {len(calls)}; see their logs")
        try:
            return ray.get(calls)
        except ray.exceptions.RayActorError as error:
            raise ReplayError(f"{what}: a replay shard or the limiter is gone for good: {error}") from error
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ReplayError):
                raise error.cause from None
            if isinstance(error.cause, OSError):
                raise LogError(f"{what} of the replay failed: {error.cause}") from error
            raise


def _empty(only: RowFilter) -> EmptyViewError:
    return EmptyViewError(f"the replay holds no episode{only}; collect before sampling from this view")
