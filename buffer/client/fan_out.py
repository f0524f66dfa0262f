"""All shards as one: requests go out side by side, samples are split among shards by what each holds."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pyarrow as pa

from buffer.errors import EmptyViewError, ReplayError
from buffer.flight.connection import Connection
from buffer.placement import Find, Placement, shard_of
from buffer.sampling.draws import Held
from buffer.sampling.request import Sampler, SampleRequest
from buffer.sampling.row_filter import RowFilter, least_of_best
from buffer.sampling.sample import Part, Sample

logger = logging.getLogger(__name__)

_HELD_S = 0.1
"""Seconds for which what a shard said it holds is taken for true; each answer of it renews that."""
_KEPT = 16
_NOTE_S = 5.0
_THREADS = 64
_ATTEMPTS = 3
"""At finding rows in a view: by what was known, by what was asked for, and once more where a shard lost its rows."""
_T = TypeVar("_T")
_Result = TypeVar("_Result")


class Shards:
    """Connections to every shard. Thread-safe."""

    def __init__(self, find: Find, token: str) -> None:
        self._find = find
        self._token = token
        self._connections: list[Connection] = []
        self._earlier: Sequence[Placement] = ()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="replay")
        self._held: dict[tuple[RowFilter, Sampler], dict[int, tuple[float, Held]]] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def refresh(self, *, ask: bool = False) -> None:
        """Connect to the shards there are: at first, where one told of more than are known, and where asked to."""
        if ask or not self._connections or any(connection.seen > len(self) for connection in self._connections):
            topology = self._find()
            new = range(len(self), len(topology.endpoints))
            self._connections = [
                *self._connections,
                *(Connection(shard, topology.endpoints[shard], self._token) for shard in new),
            ]
            self._earlier = topology.earlier
            self._held.clear()

    def append(self, wires: Sequence[pa.RecordBatch], deadline: float) -> int:
        """Append rows in `WIRE_SCHEMA`, each to its shard; returns how many were new."""
        self.refresh()
        parts: dict[int, list[pa.RecordBatch]] = {}
        for wire in wires:
            for home, part in self._placed(wire, deadline).items():
                parts.setdefault(home, []).append(part)
        try:
            return sum(self._each(lambda shard: self._connections[shard].append(parts[shard], deadline), list(parts)))
        finally:
            self._held.clear()

    def _placed(self, wire: pa.RecordBatch, deadline: float) -> dict[int, pa.RecordBatch]:
        """The rows of each shard, but for those that are stored elsewhere already."""
        if len(self) == 1 and not self._earlier:
            return {0: wire}
        ids = wire.column("episode_id").to_pylist()
        homes = np.array([shard_of(name, len(self)) for name in ids], dtype=int)
        homes[self._stored_elsewhere(ids, homes, deadline)] = -1
        used = np.unique(homes[homes >= 0]).tolist()
        if len(used) == 1 and homes.min() >= 0:
            return {used[0]: wire}
        # A batch may be a slice of a larger one: only taking rows leaves the rest behind.
        return {home: wire.take(pa.array(np.flatnonzero(homes == home))) for home in used}

    def draw(self, request: SampleRequest, rng: np.random.Generator, deadline: float) -> Sample:
        """Draw a sample. Raises EmptyViewError where nothing can be drawn, ReplayTimeout."""
        self.refresh()
        for _ in range(_ATTEMPTS):
            try:
                return self._split(request, self._bounded(request, deadline), rng, deadline)
            except EmptyViewError:
                # The cached numbers of a shard may be out of date.
                self._held.clear()
        raise EmptyViewError(f"the replay holds no episode{request.only}; collect before sampling from this view")

    def stats(self, deadline: float) -> list[dict[str, int]]:
        """The numbers of each shard."""
        self.refresh()
        return self._each(lambda shard: self._connections[shard].stats(deadline), range(len(self)))

    def note_refused(self, deadline: float) -> None:
        """Have a batch counted that was refused before it came to any shard; the first shard's metrics hold it."""
        try:
            self.refresh()
            self._connections[0].note_refused(min(deadline, time.monotonic() + _NOTE_S))
        except ReplayError as error:
            # Why the batch was refused is what its writer must hear.
            logger.warning("a batch that was refused is not counted: %s", error)

    def sweep(self, only: RowFilter, messages: bool, deadline: float) -> Sample:
        """Every episode that passes the filter."""
        self.refresh(ask=True)
        request = {"only": only.as_dict(), "messages": messages, "draw": None}
        shards = range(len(self))
        swept = self._each(lambda shard: self._connections[shard].draw(request, deadline), shards)
        parts = [Part(shard, *part) for shard, part in zip(shards, swept, strict=True)]
        return Sample.joined(parts, population=sum(len(part.draws) for part in parts))

    def update(
        self, shards: np.ndarray, seqs: np.ndarray, turns: np.ndarray, priorities: np.ndarray, deadline: float
    ) -> int:
        """Give turns new priorities, all [n]; returns how many are still held."""

        def update(shard: int) -> int:
            mine = shards == shard
            return self._connections[shard].update(seqs[mine], turns[mine], priorities[mine], deadline)

        return sum(self._each(update, np.unique(shards).tolist()))

    def close(self) -> None:
        """Close connections and threads."""
        for connection in self._connections:
            connection.close()
        self._threads.shutdown(wait=False)

    def _stored_elsewhere(self, ids: Sequence[str], homes: np.ndarray, deadline: float) -> list[int]:
        """Rows whose episode was stored in a shard that was its home then and is not now."""
        stored = []
        for placement in self._earlier:
            before: dict[int, list[int]] = {}
            for row, name in enumerate(ids):
                if (old := placement.home(name)) != homes[row]:
                    before.setdefault(old, []).append(row)
            for old, rows in before.items():
                known = self._connections[old].known([ids[row] for row in rows], deadline)
                stored += [row for row, there in zip(rows, known, strict=True) if there]
        return stored

    def _bounded(self, request: SampleRequest, deadline: float) -> RowFilter:
        """The filter of a request, with its best share of episodes turned into a lowest return.

        Every call asks the shards, because a bound kept from an earlier call would miss later appends.
        """
        only = request.only
        if request.best is None:
            return only
        answers = self._each(lambda shard: self._connections[shard].returns(only, deadline), range(len(self)))
        returns = np.concatenate(answers)
        if len(returns) == 0:
            raise EmptyViewError
        return replace(only, min_return=least_of_best(returns, request.best))

    def _split(self, request: SampleRequest, only: RowFilter, rng: np.random.Generator, deadline: float) -> Sample:
        """A sample whose draws come from each shard in proportion to what it holds of the view."""
        unit, sampler = request.unit, request.sampler
        held = self._ask_held(only, sampler, deadline)
        weights = np.array([part.weight(unit, sampler) for part in held])
        if len(self) > 1 and weights.sum() == 0:
            raise EmptyViewError
        shares = weights / weights.sum() if len(self) > 1 else np.ones(1)
        counts = rng.multinomial(request.n, shares).tolist()
        seeds = rng.integers(0, 2**63, size=len(self)).tolist()
        order = rng.permutation(request.n)

        def get(shard: int) -> Part:
            draw = {"count": counts[shard], "unit": unit, "sampler": sampler, "seed": seeds[shard]}
            ticket = {"only": only.as_dict(), "messages": request.messages, "draw": draw}
            return Part(shard, *self._connections[shard].draw(ticket, deadline), share=float(shares[shard]))

        used = np.flatnonzero(counts).tolist()
        parts = self._each(get, used)
        for part in parts:
            held[part.shard] = part.draws.held
        population = sum(part.turns if unit == "turn" else part.episodes for part in held)
        self._remember(only, sampler, {shard: held[shard] for shard in used})
        return Sample.joined(parts, population=population).reordered(order)

    def _ask_held(self, only: RowFilter, sampler: Sampler, deadline: float) -> list[Held]:
        """What each shard holds of the view; asked of those that have not said so a moment ago."""
        if len(self) == 1:
            return [Held()]
        known = self._held.get((only, sampler), {})
        now = time.monotonic()
        stale = [shard for shard in range(len(self)) if shard not in known or now - known[shard][0] > _HELD_S]
        answers = self._each(lambda shard: self._connections[shard].held(only, sampler, deadline), stale)
        self._remember(only, sampler, dict(zip(stale, answers, strict=True)))
        fresh = {shard: held for shard, (_, held) in known.items()} | dict(zip(stale, answers, strict=True))
        return [fresh[shard] for shard in range(len(self))]

    def _remember(self, only: RowFilter, sampler: Sampler, held: dict[int, Held]) -> None:
        key = (only, sampler)
        if len(self._held) >= _KEPT and key not in self._held:
            self._held.clear()
        now = time.monotonic()
        self._held.setdefault(key, {}).update({shard: (now, part) for shard, part in held.items()})

    def _each(self, function: Callable[[_T], _Result], items: Sequence[_T]) -> list[_Result]:
        """The function over the items, at once; every call has ended when this returns or raises."""
        if len(items) <= 1:
            return [function(item) for item in items]
        futures = [self._threads.submit(function, item) for item in items]
        errors = [error for future in futures if (error := future.exception()) is not None]
        if errors:
            raise errors[0]
        return [future.result() for future in futures]
