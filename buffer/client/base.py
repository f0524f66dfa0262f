"""What every client of the replay can do, inside Ray or outside: append, sample, sweep, set priorities.

Episodes go to the shard that a hash of their id names, so that a repeated append finds its first copy. Samples are
split over the shards in proportion to what each holds, so that a turn is equally likely wherever it lives. Requests
carry their own seed: the same state of the client and of the shards gives the same sample. What a view or the best
share of it bounds is settled here, over all shards, and goes to each of them as one filter of its rows.
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from buffer.client.fan_out import Shards
from buffer.episodes.schema import Episode, validate
from buffer.episodes.wire import to_wire
from buffer.errors import EmptyViewError, SchemaError
from buffer.sampling.request import SampleRequest
from buffer.sampling.row_filter import RowFilter, View
from buffer.sampling.sample import Sample

_APPENDED_TOGETHER = 16
"""Batches of `append_all` that the limiter lets through at once."""


class Turnstile(Protocol):
    """What may hold a client back: `buffer.limiter.client.LimiterClient`, or nothing."""

    def await_insert(self, deadline: float) -> None: ...

    def sampling(
        self, view: View, deadline: float, turns: int = 0
    ) -> AbstractContextManager[Callable[[int], None]]: ...


class BaseClient:
    """Thread-safe but for `state_dict` and the order of samples."""

    def __init__(self, shards: Shards, limiter: Turnstile, *, rng: np.random.Generator, timeout_s: float) -> None:
        self._shards = shards
        self._limiter = limiter
        self._rng = rng
        self._timeout_s = timeout_s

    def append(self, batch: pa.RecordBatch, *, limited: bool = True) -> int:
        """Store rows of `EPISODE_SCHEMA`; returns how many were new, once all are as durable as configured.

        Waits while the limiter holds inserts back, unless `limited` is false (demonstrations). A shard that
        restarts is waited for; where its acknowledgement was lost the rows count as known the second time.
        Raises SchemaError before anything is stored, DiskFullError where a shard has no room (rows of other
        shards are stored; append the batch again once there is room), ReplayTimeout.
        """
        return self._append([batch], limited)

    def append_all(self, batches: Iterable[pa.RecordBatch], *, limited: bool = True) -> int:
        """Store one batch after the other as `append` does, the next ones sent before the first is acknowledged.

        Returns once all are durable. Where it raises, some of them are stored, and may be appended again.
        """
        new = 0
        batches = iter(batches)
        while group := list(islice(batches, _APPENDED_TOGETHER)):
            new += self._append(group, limited)
        return new

    def _append(self, batches: Sequence[pa.RecordBatch], limited: bool) -> int:
        deadline = time.monotonic() + self._timeout_s
        for batch in batches:
            try:
                validate(batch)
            except SchemaError:
                self._shards.note_refused(deadline)
                raise
        if limited:
            self._limiter.await_insert(deadline)
        return self._shards.append([to_wire(batch) for batch in batches], deadline)

    def sample(self, request: SampleRequest, *, timeout_s: float | None = None) -> Sample:
        """Draw the turns or episodes of a request, over all shards.

        `timeout_s` bounds this call; the default is `replay.timeout_s`. Raises EmptyViewError where the view holds no
        episode, ReplayTimeout where the limiter or a shard does not answer in time.
        """
        deadline = self._deadline(timeout_s)
        turns = request.n if request.unit == "turn" else 0
        with self._limiter.sampling(request.view, deadline, turns) as count:
            sample = self._shards.draw(request, self._rng, deadline)
            count(sample.turns_drawn)
        return sample

    def update_priorities(self, sample: Sample, priorities: np.ndarray) -> int:
        """Give each turn of a sample its priority, the absolute TD error float[n]; returns how many are still held.

        Of a turn that was drawn twice the last counts. Raises ValueError for a sample of whole episodes or another
        length, ReplayError for a priority that is negative or not finite.
        """
        if len(sample) and sample.turns.min() < 0:
            raise ValueError(
                "priorities belong to turns, and this sample is of whole episodes; sample unit='turn', or name the "
                "turns by update_priorities_at"
            )
        return self.update_priorities_at(sample.shards, sample.seqs, sample.turns, priorities)

    def update_priorities_at(
        self, shards: np.ndarray, seqs: np.ndarray, turns: np.ndarray, priorities: np.ndarray
    ) -> int:
        """As `update_priorities`, of turns named by `Sample.shards`, `Sample.seqs` and their number, all [n]."""
        priorities = np.asarray(priorities, dtype=np.float64)
        if not priorities.shape == turns.shape == seqs.shape == shards.shape:
            raise ValueError(f"priorities of shape {priorities.shape} for {len(turns)} turns; give one for each")
        return self._shards.update(shards, seqs, turns, priorities, self._deadline(None))

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
        with self._limiter.sampling(view, deadline) as count:
            swept = self._shards.sweep(only, messages, deadline)
            count(swept.turns_drawn)
        if len(swept) == 0:
            raise EmptyViewError(f"the replay holds no episode{only}; collect before sampling from this view")
        return sorted(swept.distinct, key=lambda episode: (episode.seed, episode.episode_id))

    def state_dict(self) -> dict[str, Any]:
        """The random stream, for JSON or torch.save."""
        return {"rng": json.dumps(self._rng.bit_generator.state)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the random stream of `state_dict`."""
        self._rng.bit_generator.state = json.loads(state["rng"])

    def close(self) -> None:
        """Close connections and threads."""
        self._shards.close()

    def _deadline(self, timeout_s: float | None) -> float:
        return time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
