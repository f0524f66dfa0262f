"""The Arrow Flight endpoint of a shard: do_put appends, do_get samples, actions count.

- do_put: batches of `WIRE_SCHEMA`; each is answered with JSON {"new": rows} once it is durable and counted.
- do_get: the ticket is JSON {"only", "messages", "draw"}, "only" a `RowFilter` and "draw" either {"count", "unit",
  "seed"} or null for a sweep, which gives every row once. The stream carries the distinct rows drawn, and the
  metadata of its first batch the draws: int32[2, count], row index and turn.
- actions "counts" and "returns" with a `RowFilter` as JSON: {"episodes", "turns"} of the rows that pass; or of each
  of them the undiscounted return, float64[k], and in a second result the turns, int64[k]. Action "stats": every
  number.

An error carries the name of its class in `extra_info`, so that the client raises the same one.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.flight as flight

from buffer.errors import ReplayError
from buffer.shard import Shard
from buffer.store import Plan
from buffer.view import RowFilter
from buffer.wire import SAMPLE_SCHEMA, WIRE_SCHEMA, check_wire, to_lists

logger = logging.getLogger(__name__)


class ReplayFlightServer(flight.FlightServerBase):
    """Serves one shard on a free port of every interface. `on_append` runs before an append is acknowledged."""

    def __init__(self, shard: Shard, on_append: Callable[[], object]) -> None:
        super().__init__("grpc+tcp://0.0.0.0:0")
        self._shard = shard
        self._on_append = on_append
        self._thread = threading.Thread(target=self.serve, name=f"flight-{shard.index}", daemon=True)
        self._thread.start()

    def do_put(
        self,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
    ) -> None:
        """Append each batch and acknowledge it."""
        try:
            check_wire(reader.schema)
            for chunk in reader:
                new = self._shard.append(to_lists(chunk.data))
                self._on_append()
                writer.write(pa.py_buffer(json.dumps({"new": new}).encode()))
        except ReplayError as error:
            raise refusal(error) from error

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.GeneratorStream:
        """Sample or sweep."""
        try:
            request = json.loads(ticket.ticket)
            messages = bool(request["messages"])
            only, draw = RowFilter(**request["only"]), request["draw"]
            if draw is None:
                plan = self._shard.sweep(only)
            else:
                plan = self._shard.draw(draw["count"], unit=draw["unit"], only=only, seed=draw["seed"])
        except ReplayError as error:
            raise refusal(error) from error
        except (ValueError, KeyError, TypeError) as error:
            raise refusal(ReplayError(f"bad ticket {ticket.ticket!r}: {error!r}")) from error
        schema = WIRE_SCHEMA if messages else SAMPLE_SCHEMA
        return flight.GeneratorStream(schema, _stream(plan, messages))

    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> Iterator[flight.Result]:
        """Answer "counts", "returns" and "stats"."""
        if action.type == "counts":
            episodes, turns = self._shard.view_counts(_filter(action))
            yield _result({"episodes": episodes, "turns": turns})
        elif action.type == "returns":
            for numbers in self._shard.view_returns(_filter(action)):
                yield flight.Result(pa.py_buffer(numbers.tobytes()))
        elif action.type == "stats":
            yield _result(self._shard.counts().as_dict())
        else:
            raise refusal(ReplayError(f"no action {action.type!r}; a shard answers counts, returns and stats"))


def _filter(action: flight.Action) -> RowFilter:
    return RowFilter(**json.loads(action.body.to_pybytes()))


def _result(answer: dict[str, int]) -> flight.Result:
    return flight.Result(pa.py_buffer(json.dumps(answer).encode()))


def _stream(plan: Plan, messages: bool) -> Iterator[tuple[pa.RecordBatch, pa.Buffer] | pa.RecordBatch]:
    draws = pa.py_buffer(np.stack([plan.row_of_draw, plan.turn_of_draw]).tobytes())
    for index, batch in enumerate(plan.gather(messages=messages)):
        yield (batch, draws) if index == 0 else batch


def refusal(error: ReplayError) -> flight.FlightServerError:
    """The error as it crosses the wire."""
    return flight.FlightServerError(str(error), type(error).__name__.encode())
