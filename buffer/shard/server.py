"""The Arrow Flight endpoint of a shard: do_put appends, do_get samples, actions do the rest.

- do_put: batches of `WIRE_SCHEMA`. Each is acknowledged with JSON {"new": rows, "shards": number of shards} when it is
  durable and counted.
- do_get: the ticket is JSON {"only", "messages", "draw"}. "only" is a `RowFilter`; "draw" is {"count", "unit",
  "sampler", "seed"}, or null for a sweep, which returns every row once. The stream carries the distinct rows in the
  layout of `buffer.episodes.packing`; the metadata of its first batch is a `Draws`.
- actions, with JSON request and answer unless stated otherwise: "held" {"only", "sampler"} answers a `Held`; "returns"
  {"only"} answers float64[k], the undiscounted return of each row that passes; "priorities" takes an array of
  `PRIORITY_UPDATE` and answers {"known"}; "known" {"ids"} answers {"known"}, for each id whether an append of it
  changes nothing; "stats" answers the counts of the shard.

Every request carries the replay's token (see `TokenCheck`).
"""

import json
from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.flight as flight

from buffer.episodes.wire import check_wire
from buffer.errors import ReplayError
from buffer.flight.network import LOOPBACK
from buffer.flight.serving import Server, errors_for_client
from buffer.flight.tls import Identity
from buffer.sampling.sample import Draws
from buffer.shard import requests
from buffer.shard.shard import Shard
from buffer.shard.store import sample_schema


class ShardServer(Server):
    """Serves one shard. `on_append` runs before an append is acknowledged; without it every append is refused."""

    def __init__(
        self,
        shard: Shard,
        *,
        token: str,
        on_append: Callable[[], object] | None,
        host: str = LOOPBACK,
        port: int = 0,
        identity: Identity | None = None,
    ) -> None:
        self.shards = 1  # Number of shards of the replay; every answer carries it, so that clients learn of a new shard
        self._shard = shard
        self._on_append = on_append
        super().__init__(token=token, host=host, port=port, identity=identity)

    def put(self, reader: flight.MetadataRecordBatchReader) -> Iterator[bytes]:
        """Append each batch and acknowledge it."""
        if self._on_append is None:
            raise ReplayError("this replay is served from a folder, read-only; nothing can be appended")
        check_wire(reader.schema)
        for chunk in reader:
            new = requests.append(self._shard, chunk.data)
            self._on_append()
            yield json.dumps({"new": new, "shards": self.shards}).encode()

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.GeneratorStream:
        """Sample or sweep."""
        with errors_for_client(f"ticket {ticket.ticket!r}"):
            request = json.loads(ticket.ticket)
            draws, batches = requests.take(self._shard, request)
            schema = sample_schema(bool(request["messages"]))
        return flight.GeneratorStream(schema, self._with_draws(draws, batches))

    def _with_draws(
        self, draws: Draws, batches: Iterator[pa.RecordBatch]
    ) -> Iterator[tuple[pa.RecordBatch, pa.Buffer] | pa.RecordBatch]:
        yield next(batches), pa.py_buffer(draws.to_bytes(self.shards))
        yield from batches

    def answer(self, action: str, body: bytes) -> bytes:
        """Answer an action."""
        return requests.answer(self._shard, action, body)
