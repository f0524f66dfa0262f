"""What every client of the replay can do, inside Ray or outside.

An append goes to the shard that a hash of the episode's id names, so a repeated append reaches the first copy. A sample
is split over the shards in proportion to what each holds, so a turn is equally likely in every shard. Each request to a
shard carries a seed: the same state of the client and of the shards gives the same sample. The client converts a view
and its best share to one filter of rows, over all shards, and sends that filter to each shard.
"""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from buffer.client.shards import Shards
from buffer.episodes.schema import Episode
from buffer.episodes.validation import validate
from buffer.episodes.wire import to_wire
from buffer.errors import EmptyViewError
from buffer.sampling.request import RowFilter, Sampler, SampleRequest, View, least_of_best
from buffer.sampling.sample import PRIORITY_UPDATE, Draws, Held, Sample

_APPENDED_TOGETHER = 16  # Batches of `append_all` that the limiter admits at once
_HELD_S = 0.1  # Seconds for which the contents of a shard are cached; each of its answers renews them
_CACHED_FILTERS = 16
_ATTEMPTS = 3
"""Attempts at drawing from a view: with cached contents, with fresh ones, and once more if a shard lost its rows."""


class NoLimiter:
    """Admits every insert and every sample; `LimiterClient` overrides both methods."""

    def await_insert(self, deadline: float) -> None:
        """Wait until an insert is admitted. Raises ReplayTimeout."""

    def sample(self, draw: Callable[[], Sample], view: View, deadline: float, turns: int = 0) -> Sample:
        """Wait until a sample of the view is admitted, and return it from `draw`. Raises ReplayTimeout."""
        return draw()


class BaseClient:
    """Appends to and samples from the shards of one replay. Thread-safe, except `state_dict` and the order of samples.

    Every wait ends after `timeout_s` with ReplayTimeout.
    """

    def __init__(self, shards: Shards, limiter: NoLimiter, *, rng: np.random.Generator, timeout_s: float) -> None:
        self._shards = shards
        self._limiter = limiter
        self._rng = rng
        self._timeout_s = timeout_s
        self._held: dict[tuple[RowFilter, Sampler], dict[int, tuple[float, Held]]] = {}
        """What each shard holds of a view, and when it said so."""

    def append(self, batch: pa.RecordBatch, *, limited: bool = True) -> int:
        """Store rows of `EPISODE_SCHEMA`; returns how many were new, when all are as durable as configured.

        Waits while the limiter blocks inserts, unless `limited` is false (demonstrations). If a shard restarts, the
        client resends the batch; the shard ignores ids that it already holds, which then do not count as new.
        Raises SchemaError before anything is stored, DiskFullError if a shard has no room (rows of other shards are
        stored; append the batch again when there is room), ReplayTimeout.
        """
        return self.append_all([batch], limited=limited)

    def append_all(self, batches: Iterable[pa.RecordBatch], *, limited: bool = True) -> int:
        """Store batches as `append` does, in order, without waiting for each acknowledgement before the next batch.

        Returns when all are durable. If it raises, some of them are stored, and may be appended again.
        """
        new = 0
        batches = iter(batches)
        while group := list(islice(batches, _APPENDED_TOGETHER)):
            deadline = self._deadline(None)
            for batch in group:
                validate(batch)
            if limited:
                self._limiter.await_insert(deadline)
            try:
                new += self._shards.append([to_wire(batch) for batch in group], deadline)
            finally:
                self._held.clear()
        return new

    def sample(self, request: SampleRequest, *, timeout_s: float | None = None) -> Sample:
        """Draw the turns or episodes of a request, over all shards.

        Raises EmptyViewError if the view holds no episode, ReplayTimeout if the limiter or a shard does not answer
        within `timeout_s` (default: `replay.timeout_s`).
        """
        deadline = self._deadline(timeout_s)
        turns = request.n if request.unit == "turn" else 0
        return self._limiter.sample(lambda: self._draw(request, deadline), request.view, deadline, turns)

    def sweep(
        self,
        *,
        view: View = "critic",
        min_version: int | None = None,
        messages: bool = False,
        timeout_s: float | None = None,
        counted: bool = True,
    ) -> list[Episode]:
        """Return every episode of the view exactly once, ordered by (seed, episode_id).

        The arguments and errors are those of `SampleRequest` and `sample`; every turn counts as sampled once. A sweep
        that trains nothing is not `counted`: it does not wait for the limiter, and the limiter does not see it. Each
        shard answers for its own moment: episodes appended or evicted meanwhile may or may not be included.
        """
        only = RowFilter.of_view(view, min_version)
        deadline = self._deadline(timeout_s)

        def draw() -> Sample:
            self._shards.refresh(force=True)
            ticket = {"only": asdict(only), "messages": messages, "draw": None}
            answers = self._shards.map(lambda shard: self._get(shard, ticket, deadline), self._shards.every)
            return Sample.joined([part for part, _ in answers], population=sum(held.episodes for _, held in answers))

        swept = self._limiter.sample(draw, view, deadline) if counted else draw()
        if len(swept) == 0:
            raise EmptyViewError(f"the replay holds no episode{only}; collect before sampling from this view")
        return sorted(swept.distinct, key=lambda episode: (episode.seed, episode.episode_id))

    def update_priorities(self, sample: Sample, priorities: np.ndarray) -> int:
        """Set the priority of each turn of a sample, the absolute TD error float[n]; returns how many are still held.

        If a turn was drawn twice, the last one wins. Raises ValueError for a sample of whole episodes or another
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
        """Do as `update_priorities` for turns named by `Sample.shards`, `Sample.seqs` and turn number, all [n]."""
        priorities = np.asarray(priorities, dtype=np.float64)
        if not priorities.shape == turns.shape == seqs.shape == shards.shape:
            raise ValueError(f"priorities of shape {priorities.shape} for {len(turns)} turns; give one for each")
        deadline = self._deadline(None)
        update = np.empty(len(turns), PRIORITY_UPDATE)
        update["seq"], update["turn"], update["priority"] = seqs, turns, priorities

        def send(shard: int) -> int:
            answer = self._shards[shard].act("priorities", update[shards == shard].tobytes(), deadline)
            return int(json.loads(answer)["known"])

        return sum(self._shards.map(send, np.unique(shards).tolist()))

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the random generator, for JSON or torch.save."""
        return {"rng": json.dumps(self._rng.bit_generator.state)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the random generator from `state_dict`."""
        self._rng.bit_generator.state = json.loads(state["rng"])

    def close(self) -> None:
        """Close connections and threads."""
        self._shards.close()

    def _draw(self, request: SampleRequest, deadline: float) -> Sample:
        self._shards.refresh()
        for _ in range(_ATTEMPTS):
            try:
                return self._draw_from(self._bounded(request, deadline), request, deadline)
            except EmptyViewError:
                # The cached contents of a shard may be out of date.
                self._held.clear()
        raise EmptyViewError(f"the replay holds no episode{request.only}; collect before sampling from this view")

    def _bounded(self, request: SampleRequest, deadline: float) -> RowFilter:
        """Return the filter of a request, with its best share converted to a lowest return.

        Every call asks the shards, because a bound kept from an earlier call would miss later appends.
        """
        only = request.only
        if request.best is None:
            return only
        answers = self._shards.ask("returns", {"only": asdict(only)}, self._shards.every, deadline)
        returns = np.frombuffer(b"".join(answers), np.float64)
        if len(returns) == 0:
            raise EmptyViewError
        return replace(only, min_return=least_of_best(returns, request.best))

    def _draw_from(self, only: RowFilter, request: SampleRequest, deadline: float) -> Sample:
        """Draw from each shard in proportion to what it holds of the rows that pass the filter."""
        unit, sampler, shards = request.unit, request.sampler, len(self._shards)
        held = self._ask_held(only, sampler, deadline)
        weights = np.array([part.weight(unit, sampler) for part in held])
        if shards > 1 and weights.sum() == 0:
            raise EmptyViewError
        shares = weights / weights.sum() if shards > 1 else np.ones(1)
        counts = self._rng.multinomial(request.n, shares).tolist()
        seeds = self._rng.integers(0, 2**63, size=shards).tolist()
        order = self._rng.permutation(request.n)

        def get(shard: int) -> tuple[Sample, Held]:
            draw = {"count": counts[shard], "unit": unit, "sampler": sampler, "seed": seeds[shard]}
            ticket = {"only": asdict(only), "messages": request.messages, "draw": draw}
            return self._get(shard, ticket, deadline, share=float(shares[shard]))

        used = np.flatnonzero(counts).tolist()
        answers = self._shards.map(get, used)
        fresh = {shard: part for shard, (_, part) in zip(used, answers, strict=True)}
        self._remember(only, sampler, fresh)
        held = [fresh.get(shard, part) for shard, part in enumerate(held)]
        population = sum(part.turns if unit == "turn" else part.episodes for part in held)
        return Sample.joined([sample for sample, _ in answers], population=population, order=order)

    def _get(self, shard: int, ticket: dict[str, Any], deadline: float, *, share: float = 1.0) -> tuple[Sample, Held]:
        """Return what one shard draws or sweeps, and what it draws from."""
        what = "sample" if ticket["draw"] else "sweep"
        batches, metadata = self._shards[shard].get(what, ticket, deadline)
        draws = Draws.from_bytes(metadata)
        self._shards.announce(draws.shards)
        return Sample.of_shard(shard, batches, draws, share=share), draws.held

    def _ask_held(self, only: RowFilter, sampler: Sampler, deadline: float) -> list[Held]:
        """Return what each shard holds; asks the shards whose cached contents are too old."""
        if len(self._shards) == 1:
            return [Held()]
        known = self._held.get((only, sampler), {})
        now = time.monotonic()
        stale = [shard for shard in self._shards.every if shard not in known or now - known[shard][0] > _HELD_S]
        answers = self._shards.ask("held", {"only": asdict(only), "sampler": sampler}, stale, deadline)
        fresh = {shard: Held(**json.loads(answer)) for shard, answer in zip(stale, answers, strict=True)}
        self._remember(only, sampler, fresh)
        return [fresh[shard] if shard in fresh else known[shard][1] for shard in self._shards.every]

    def _remember(self, only: RowFilter, sampler: Sampler, held: dict[int, Held]) -> None:
        key = (only, sampler)
        if len(self._held) >= _CACHED_FILTERS and key not in self._held:
            self._held.clear()
        now = time.monotonic()
        self._held.setdefault(key, {}).update({shard: (now, part) for shard, part in held.items()})

    def _deadline(self, timeout_s: float | None) -> float:
        return time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
