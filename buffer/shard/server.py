"""The Arrow Flight endpoint of a shard: do_put appends, do_get samples, actions do the rest.

- do_put: batches of `WIRE_SCHEMA`. Each is acknowledged with JSON {"new": rows, "shards": number of shards} when it is
  durable and counted.
- do_get: the ticket is JSON {"only", "messages", "draw"}. "only" is a `RowFilter`; "draw" is {"count", "unit",
  "sampler", "seed"}, or null for a sweep, which returns every row once. The stream carries the distinct rows in the
  layout of `buffer.episodes.packing`; the metadata of its first batch is a `Draws`.
- actions, with JSON request and answer unless stated otherwise: "held" {"only", "sampler"} answers a `Held`; "returns"
  {"only"} answers float64[k], the undiscounted return of each row that passes; "priorities" takes an array of
  `PRIORITY_UPDATE` and answers {"known"}; "known" {"ids"} answers {"known"}, for each id whether an append of it
  changes nothing; "refused" counts a batch that its client refused; "stats" answers the counts of the shard.

Every request carries the replay's token (see `TokenCheck`).
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.flight as flight

from buffer.episodes.wire import check_wire, to_lists
from buffer.errors import ReplayError
from buffer.flight.serving import TokenCheck, errors_for_client
from buffer.sampling.request import RowFilter
from buffer.sampling.sample import PRIORITY_UPDATE, Draws
from buffer.shard.shard import Shard
from buffer.shard.store import sample_schema


class ShardServer(flight.FlightServerBase):
    """Serves one shard. `on_append` runs before an append is acknowledged; without it every append is refused."""

    def __init__(
        self, shard: Shard, *, token: str, on_append: Callable[[], object] | None, host: str = "0.0.0.0", port: int = 0
    ) -> None:
        super().__init__(f"grpc+tcp://{host}:{port}", middleware={"token": TokenCheck(token)})
        self.shards = 1  # Number of shards of the replay; every answer carries it, so that clients learn of a new shard
        self._shard = shard
        self._on_append = on_append
        self._thread = threading.Thread(target=self.serve, name=f"flight-{shard.index}", daemon=True)
        self._thread.start()

    def until_closed(self) -> None:
        """Return after the shutdown.

        Arrow handles SIGINT and SIGTERM itself while it serves, and passes them to Python when it has ended. A thread
        that waits for anything else does not receive them.
        """
        self._thread.join()

    def do_put(
        self,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
    ) -> None:
        """Append each batch and acknowledge it."""
        with errors_for_client("append"):
            if self._on_append is None:
                raise ReplayError("this replay is served from a folder, read-only; nothing can be appended")
            with self._counting_refusals():
                check_wire(reader.schema)
            for chunk in reader:
                with self._counting_refusals():
                    batch = to_lists(chunk.data)
                new = self._shard.append(batch)
                self._on_append()
                writer.write(pa.py_buffer(json.dumps({"new": new, "shards": self.shards}).encode()))

    @contextmanager
    def _counting_refusals(self) -> Iterator[None]:
        """Count input that is no batch; `Shard.append` counts the batches that it refuses."""
        try:
            yield
        except (ReplayError, ValueError):
            self._shard.metrics.refused.inc()
            raise

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.GeneratorStream:
        """Sample or sweep."""
        with errors_for_client(f"ticket {ticket.ticket!r}"):
            request = json.loads(ticket.ticket)
            messages = bool(request["messages"])
            only, draw = RowFilter(**request["only"]), request["draw"]
            if draw is None:
                draws, batches = self._shard.sweep(only, messages=messages)
            else:
                how = {name: draw[name] for name in ("count", "unit", "sampler", "seed")}
                draws, batches = self._shard.draw(only=only, messages=messages, **how)
        return flight.GeneratorStream(sample_schema(messages), self._with_draws(draws, batches))

    def _with_draws(
        self, draws: Draws, batches: Iterator[pa.RecordBatch]
    ) -> Iterator[tuple[pa.RecordBatch, pa.Buffer] | pa.RecordBatch]:
        yield next(batches), pa.py_buffer(draws.to_bytes(self.shards))
        yield from batches

    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> Iterator[flight.Result]:
        """Answer an action."""
        body = action.body.to_pybytes()
        with errors_for_client(f"{action.type} {body!r}"):
            answer = self._answer(action.type, body)
            data = answer.tobytes() if isinstance(answer, np.ndarray) else json.dumps(answer).encode()
            yield flight.Result(pa.py_buffer(data))

    def _answer(self, name: str, body: bytes) -> np.ndarray | dict[str, Any]:
        if name == "stats":
            return asdict(self._shard.counts())
        if name == "refused":
            self._shard.metrics.refused.inc()
            return {}
        if name == "priorities":
            update = np.frombuffer(body, PRIORITY_UPDATE)
            return {"known": self._shard.update_priorities(update["seq"], update["turn"], update["priority"])}
        if name not in ("held", "returns", "known"):
            actions = "held, returns, known, priorities, refused and stats"
            raise ReplayError(f"no action {name!r}; the actions of a shard are {actions}")
        request = json.loads(body)
        with self._shard.reading() as store:
            if name == "known":
                return {"known": [episode_id in store.ids for episode_id in request["ids"]]}
            only = RowFilter(**request["only"])
            return asdict(store.index.held(only, request["sampler"])) if name == "held" else store.index.returns(only)
