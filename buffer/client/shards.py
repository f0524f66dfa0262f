"""The connections of a client to every shard: concurrent requests, new shards, and appends to the right shard."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from buffer.flight.endpoint import Endpoint, Locate
from buffer.flight.tls import Trust
from buffer.placement import shard_of

_THREADS = 64
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Topology(NamedTuple):
    """The shards of a replay."""

    endpoints: Sequence[Locate]  # How each shard is found, in order
    earlier: Sequence[int]  # Numbers of shards that the replay had before; an episode may be in its shard of then


class Connection(Protocol):
    """A client's connection to one shard; see `buffer.flight.endpoint.Endpoint`, which retries until the deadline."""

    def act(self, action: str, request: bytes | dict[str, Any], deadline: float) -> bytes:
        """Return the result of an action; a dict is sent as JSON."""

    def get(self, what: str, ticket: dict[str, Any], deadline: float) -> tuple[list[pa.RecordBatch], bytes]:
        """Return the rows of a sample or a sweep, and the draws as bytes."""

    def put(self, what: str, batches: Sequence[pa.RecordBatch], deadline: float) -> list[bytes]:
        """Append batches; returns the acknowledgement of each."""

    def close(self) -> None:
        """Drop the connection."""


FindShards = Callable[[], Topology]  # Returns the present topology


class Shards:
    """One endpoint per shard, in order. Thread-safe."""

    def __init__(self, find: FindShards, token: str, trust: Trust | None = None) -> None:
        self._find = find
        self._token = token
        self._trust = trust
        self._endpoints: Sequence[Connection] = []
        self._earlier: Sequence[int] = ()
        self._announced = 0  # Largest number of shards that an answer announced
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="replay")

    def __len__(self) -> int:
        return len(self._endpoints)

    @property
    def every(self) -> range:
        """The indices of all shards."""
        return range(len(self))

    def __getitem__(self, shard: int) -> Connection:
        return self._endpoints[shard]

    def announce(self, shards: int) -> None:
        """Note the number of shards that an answer carried."""
        self._announced = max(self._announced, shards)

    def refresh(self, *, force: bool = False) -> None:
        """Connect to the present shards if there are none yet, if a new one was announced, or if forced."""
        if force or not self._endpoints or self._announced > len(self):
            topology = self._find()
            new = [
                Endpoint(f"replay shard {shard}", topology.endpoints[shard], self._token, self._trust)
                for shard in range(len(self), len(topology.endpoints))
            ]
            self._endpoints = [*self._endpoints, *new]
            self._earlier = topology.earlier

    def ask(self, action: str, request: dict[str, Any], shards: Sequence[int], deadline: float) -> list[bytes]:
        """Return the answers of the shards to an action."""
        return self.map(lambda shard: self[shard].act(action, request, deadline), shards)

    def map(self, function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
        """Call the function for all items concurrently; every call has ended when this returns or raises."""
        if len(items) <= 1:
            return [function(item) for item in items]
        futures = [self._threads.submit(function, item) for item in items]
        errors = [error for future in futures if (error := future.exception()) is not None]
        if errors:
            raise errors[0]
        return [future.result() for future in futures]

    def append(self, wires: Sequence[pa.RecordBatch], deadline: float) -> int:
        """Append rows in `WIRE_SCHEMA`, each to its shard; returns how many were new."""
        self.refresh()
        parts: dict[int, list[pa.RecordBatch]] = {}
        for wire in wires:
            for shard, part in self._divided(wire, deadline).items():
                parts.setdefault(shard, []).append(part)

        def append(shard: int) -> int:
            answers = [json.loads(answer) for answer in self[shard].put("append", parts[shard], deadline)]
            self.announce(max(answer["shards"] for answer in answers))
            return sum(answer["new"] for answer in answers)

        return sum(self.map(append, list(parts)))

    def close(self) -> None:
        """Close connections and threads."""
        for endpoint in self._endpoints:
            endpoint.close()
        self._threads.shutdown(wait=False)

    def _divided(self, wire: pa.RecordBatch, deadline: float) -> dict[int, pa.RecordBatch]:
        """Return the rows of each shard, without those that another shard holds already."""
        if len(self) == 1 and not self._earlier:
            return {0: wire}
        ids = wire.column("episode_id").to_pylist()
        shards = np.array([shard_of(name, len(self)) for name in ids], dtype=int)
        shards[self._stored_elsewhere(ids, shards, deadline)] = -1
        used = np.unique(shards[shards >= 0]).tolist()
        if len(used) == 1 and shards.min() >= 0:
            return {used[0]: wire}
        # A batch may be a slice of a larger one, and only `take` leaves the other rows behind.
        return {shard: wire.take(pa.array(np.flatnonzero(shards == shard))) for shard in used}

    def _stored_elsewhere(self, ids: Sequence[str], shards: np.ndarray, deadline: float) -> list[int]:
        """Return the rows whose episode is in a shard that was its shard when the replay had fewer."""
        stored = []
        for count in self._earlier:
            candidates: dict[int, list[int]] = {}
            for row, name in enumerate(ids):
                if (before := shard_of(name, count)) != shards[row]:
                    candidates.setdefault(before, []).append(row)
            for before, rows in candidates.items():
                answer = self[before].act("known", {"ids": [ids[row] for row in rows]}, deadline)
                stored += [row for row, known in zip(rows, json.loads(answer)["known"], strict=True) if known]
        return stored
