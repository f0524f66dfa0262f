"""A client's way to one shard: append, draw, count, set priorities."""

import json
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.flight as flight

from buffer.episodes.wire import WIRE_SCHEMA
from buffer.flight.endpoint import Endpoint, Locate
from buffer.sampling.draws import Draws, Held, PriorityUpdate
from buffer.sampling.request import Sampler
from buffer.sampling.row_filter import RowFilter

_UNDER_WAY = 4
"""Batches of an append that are sent ahead of their acknowledgement."""


class Connection(Endpoint):
    """One shard as a client sees it. Every request may be repeated: appends are idempotent, draws are seeded."""

    def __init__(self, index: int, locate: Locate, token: str) -> None:
        super().__init__(f"replay shard {index}", locate, token)
        self.seen = 0
        """The largest number of shards that it has told of."""

    def append(self, batches: Sequence[pa.RecordBatch], deadline: float) -> int:
        """Append rows in `WIRE_SCHEMA`, several batches under way at once; returns how many were new."""
        waiting = deque(batches)
        new = 0

        def put(client: flight.FlightClient, options: flight.FlightCallOptions) -> int:
            nonlocal new
            descriptor = flight.FlightDescriptor.for_path("append")
            writer, answers = client.do_put(descriptor, WIRE_SCHEMA, options)
            with writer:
                sent = 0
                while waiting:
                    while sent < min(len(waiting), _UNDER_WAY):
                        writer.write_batch(waiting[sent])
                        sent += 1
                    if sent == len(waiting):
                        writer.done_writing()
                    answer = answers.read()
                    if answer is None:
                        raise flight.FlightUnavailableError("the stream ended without an acknowledgement")
                    told = json.loads(answer.to_pybytes())
                    self.seen = max(self.seen, told["shards"])
                    new += told["new"]
                    waiting.popleft()
                    sent -= 1
            return new

        return self._call(put, "append", deadline)

    def draw(self, request: dict[str, Any], deadline: float) -> tuple[list[pa.RecordBatch], Draws]:
        """(batches, draws) of a do_get request, read batch by batch."""
        ticket = flight.Ticket(json.dumps(request).encode())

        def get(client: flight.FlightClient, options: flight.FlightCallOptions) -> tuple[list[pa.RecordBatch], Draws]:
            chunks = list(client.do_get(ticket, options))
            return [chunk.data for chunk in chunks], Draws.from_bytes(chunks[0].app_metadata.to_pybytes())

        batches, draws = self._call(get, "sweep" if request["draw"] is None else "sample", deadline)
        self.seen = max(self.seen, draws.shards)
        return batches, draws

    def held(self, only: RowFilter, sampler: Sampler, deadline: float) -> Held:
        """What of the shard passes the filter."""
        (body,) = self._act("held", {"only": only.as_dict(), "sampler": sampler}, deadline)
        return Held(**json.loads(body))

    def returns(self, only: RowFilter, deadline: float) -> np.ndarray:
        """float64[k], the undiscounted return of each episode of the shard that passes the filter."""
        (returns,) = self._act("returns", {"only": only.as_dict()}, deadline)
        return np.frombuffer(returns, dtype=np.float64)

    def update(self, seqs: np.ndarray, turns: np.ndarray, priorities: np.ndarray, deadline: float) -> int:
        """Give turns new priorities; returns how many the shard still holds."""
        body = PriorityUpdate(seqs, turns, priorities).to_bytes()
        (answer,) = self.act(flight.Action("priorities", body), deadline)
        return int(json.loads(answer)["known"])

    def known(self, ids: Sequence[str], deadline: float) -> list[bool]:
        """Of each id whether the shard has stored it."""
        (body,) = self._act("known", {"ids": list(ids)}, deadline)
        return list(json.loads(body)["known"])

    def note_refused(self, deadline: float) -> None:
        """Have a batch counted that its client refused."""
        self._act("refused", {}, deadline)

    def stats(self, deadline: float) -> dict[str, int]:
        """Every number of the shard."""
        (body,) = self._act("stats", {}, deadline)
        return dict(json.loads(body))

    def _act(self, name: str, request: dict[str, Any], deadline: float) -> list[bytes]:
        """The results of an action."""
        return self.act(flight.Action(name, json.dumps(request).encode()), deadline)
