"""The Arrow Flight endpoint of a shard: do_put appends, do_get samples, actions count.

- do_put: batches of `WIRE_SCHEMA`; each is answered with JSON {"new": rows, "shards": how many there are} once it is
  durable and counted.
- do_get: the ticket is JSON {"only", "messages", "draw"}. "only" is a `RowFilter`; "draw" is {"count", "unit",
  "sampler", "seed"}, or null for a sweep, which returns every row once. The stream carries the distinct rows in the
  layout of `buffer.episodes.packing`; the metadata of its first batch is a `Draws`.
- actions, with JSON request and answer unless stated otherwise: "held" {"only", "sampler"} answers a `Held`; "returns"
  {"only"} answers float64[k], the undiscounted return of each row that passes; "priorities" takes a `PriorityUpdate`
  and answers {"known"}; "known" {"ids"} answers {"known"}, for each id whether the shard ignores an append of it;
  "refused" counts a batch that its client refused; "stats" answers all counts of the shard.

Every request carries the replay's token in the header "authorization: Bearer TOKEN". An error carries the name of its
class in `extra_info`, so that the client raises the same one.
"""

import hmac
import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.flight as flight

from buffer.episodes.wire import check_wire, to_lists
from buffer.errors import ReplayError
from buffer.sampling.draws import PriorityUpdate
from buffer.sampling.row_filter import RowFilter
from buffer.shard.shard import Shard
from buffer.shard.store import Plan

logger = logging.getLogger(__name__)


class Gate(flight.ServerMiddlewareFactory):
    """Lets no request through that does not carry the token."""

    def __init__(self, token: str) -> None:
        self._wanted = f"Bearer {token}".encode()

    def start_call(self, info: flight.CallInfo, headers: dict[str, list[str | bytes]]) -> None:
        given = headers.get("authorization", [""])[0]
        given = given.encode() if isinstance(given, str) else given
        if not hmac.compare_digest(given, self._wanted):
            raise flight.FlightUnauthenticatedError("this replay wants its token in the authorization header")


class ReplayFlightServer(flight.FlightServerBase):
    """Serves one shard. `on_append` runs before an append is acknowledged; without it none is taken."""

    def __init__(
        self,
        shard: Shard,
        *,
        token: str,
        on_append: Callable[[], object] | None,
        host: str = "0.0.0.0",
        port: int = 0,
    ) -> None:
        super().__init__(f"grpc+tcp://{host}:{port}", middleware={"token": Gate(token)})
        self.shards = 1
        """How many shards the replay has; clients learn from each answer of one that was added."""
        self._shard = shard
        self._on_append = on_append
        self._thread = threading.Thread(target=self.serve, name=f"flight-{shard.index}", daemon=True)
        self._thread.start()

    def until_closed(self) -> None:
        """Return once it was shut down.

        Arrow takes SIGINT and SIGTERM for itself while it serves, and hands them to Python when it has ended: a thread
        that waits for anything else does not hear of them.
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
        with refusing("append"):
            if self._on_append is None:
                raise ReplayError("this replay is served from a folder that others wrote; nothing can be appended")
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
        """Of what is no batch at all; `Shard.append` counts those that it refuses itself."""
        try:
            yield
        except (ReplayError, ValueError):
            self._shard.metrics.refused.inc()
            raise

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.GeneratorStream:
        """Sample or sweep."""
        with refusing(f"ticket {ticket.ticket!r}"):
            request = json.loads(ticket.ticket)
            messages = bool(request["messages"])
            only, draw = RowFilter(**request["only"]), request["draw"]
            if draw is None:
                plan = self._shard.sweep(only, messages=messages)
            else:
                how = {name: draw[name] for name in ("unit", "sampler", "seed")}
                plan = self._shard.draw(draw["count"], only=only, messages=messages, **how)
        return flight.GeneratorStream(plan.schema, _stream(plan, self.shards))

    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> Iterator[flight.Result]:
        """Answer an action."""
        body = action.body.to_pybytes()
        with refusing(f"{action.type} {body!r}"):
            for answer in self._answers(action.type, body):
                data = answer.tobytes() if isinstance(answer, np.ndarray) else json.dumps(answer).encode()
                yield flight.Result(pa.py_buffer(data))

    def _answers(self, name: str, body: bytes) -> Sequence[np.ndarray | dict[str, Any]]:
        if name == "stats":
            return [self._shard.counts().as_dict()]
        if name == "refused":
            self._shard.metrics.refused.inc()
            return [{}]
        if name == "priorities":
            update = PriorityUpdate.from_bytes(body)
            return [{"known": self._shard.update_priorities(update.seqs, update.turns, update.priorities)}]
        if name not in ("held", "returns", "known"):
            raise ReplayError(
                f"no action {name!r}; a shard answers held, returns, known, priorities, refused and stats"
            )
        request = json.loads(body)
        if name == "known":
            return [{"known": self._shard.known(request["ids"])}]
        only = RowFilter(**request["only"])
        if name == "held":
            return [asdict(self._shard.held(only, request["sampler"]))]
        return [self._shard.view_returns(only)]


def _stream(plan: Plan, shards: int) -> Iterator[tuple[pa.RecordBatch, pa.Buffer] | pa.RecordBatch]:
    draws = pa.py_buffer(replace(plan.draws, shards=shards).to_bytes())
    for index, batch in enumerate(plan.gather()):
        yield (batch, draws) if index == 0 else batch


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Errors as they cross the wire; `what` names a request that cannot be read."""
    try:
        yield
    except ReplayError as error:
        raise flight.FlightServerError(str(error), type(error).__name__.encode()) from error
    except (ValueError, KeyError, TypeError) as error:
        raise flight.FlightServerError(f"bad {what}: {error!r}", ReplayError.__name__.encode()) from error
