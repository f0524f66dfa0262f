"""The Arrow Flight endpoint of a replica, and the way of its shard to it.

- do_put: batches of one value, bytes to write, whose metadata say where: JSON {"process", "epoch", "segment", "offset",
  "anew"}; each is answered once it is written. An action with such a body takes twice as long.
- actions, JSON in: "state" answers JSON {"process", "epoch", "segments": bytes of each}; "read" {"segment", "offset",
  "length"} answers bytes; "keep" {"process", "epoch", "segments"}, "commit" {"epoch", "life", "segments"} and "discard"
  {"epoch"} answer nothing.

See `Replica`.
"""

import json
import threading
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.flight as flight

from buffer.episodes.wire import binary_array, binary_parts
from buffer.errors import ReplayError
from buffer.flight.endpoint import Endpoint
from buffer.flight.server import Gate, refusing
from buffer.replication.replica import Replica

_WRITTEN = pa.schema([("bytes", pa.binary())])


class ReplicaState(NamedTuple):
    """What a replica has."""

    process: str
    epoch: int
    segments: dict[str, int]
    """Bytes of each."""


class ReplicaFlightServer(flight.FlightServerBase):
    """Serves one replica."""

    def __init__(self, replica: Replica, *, token: str) -> None:
        super().__init__("grpc+tcp://0.0.0.0:0", middleware={"token": Gate(token)})
        self._replica = replica
        threading.Thread(target=self.serve, name="replica", daemon=True).start()

    def do_put(
        self,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
    ) -> None:
        """Write bytes and acknowledge them."""
        with refusing("write"):
            for chunk in reader:
                _, data = binary_parts(chunk.data.column(0))
                self._replica.write(**json.loads(chunk.app_metadata.to_pybytes()), data=data.data)
                writer.write(pa.py_buffer(b"{}"))

    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> Iterator[flight.Result]:
        """Answer an action."""
        body = action.body.to_pybytes()
        with refusing(f"{action.type} {body!r}"):
            yield flight.Result(pa.py_buffer(self._answer(action.type, json.loads(body))))

    def _answer(self, name: str, request: dict[str, Any]) -> bytes:
        replica = self._replica
        if name == "state":
            return json.dumps(ReplicaState(replica.process, replica.epoch, replica.sizes())._asdict()).encode()
        if name == "read":
            return replica.read(**request)
        if name == "keep":
            replica.keep(**request)
        elif name == "commit":
            replica.commit(**request)
        elif name == "discard":
            replica.discard(**request)
        else:
            raise ReplayError(f"no action {name!r}; a replica answers state, read, keep, commit and discard")
        return b""


class ReplicaEndpoint(Endpoint):
    """A replica as its shard sees it. Errors are those of `Replica`, and ReplayTimeout."""

    def state(self, deadline: float) -> ReplicaState:
        """What it has now."""
        return ReplicaState(**json.loads(self._ask("state", deadline)))

    def read(self, segment: str, offset: int, length: int, deadline: float) -> bytes:
        """See `Replica.read`."""
        return self._ask("read", deadline, segment=segment, offset=offset, length=length)

    def write(
        self, process: str, epoch: int, segment: str, offset: int, data: bytes, deadline: float, *, anew: bool
    ) -> None:
        """See `Replica.write`."""
        place = {"process": process, "epoch": epoch, "segment": segment, "offset": offset, "anew": anew}
        batch = pa.RecordBatch.from_arrays([binary_array(data, np.array([len(data)]))], schema=_WRITTEN)

        def put(client: flight.FlightClient, options: flight.FlightCallOptions) -> None:
            writer, answers = client.do_put(flight.FlightDescriptor.for_path("write"), _WRITTEN, options)
            with writer:
                writer.write_with_metadata(batch, pa.py_buffer(json.dumps(place).encode()))
                writer.done_writing()
                if answers.read() is None:
                    raise flight.FlightUnavailableError("the stream ended without an acknowledgement")

        self._call(put, "write", deadline)

    def keep(self, process: str, epoch: int, segments: Collection[str], deadline: float) -> None:
        """See `Replica.keep`."""
        self._ask("keep", deadline, process=process, epoch=epoch, segments=list(segments))

    def commit(self, epoch: int, life: str, segments: Mapping[str, int] | None, deadline: float) -> None:
        """See `Replica.commit`."""
        self._ask("commit", deadline, epoch=epoch, life=life, segments=segments)

    def discard(self, epoch: int, deadline: float) -> None:
        """See `Replica.discard`."""
        self._ask("discard", deadline, epoch=epoch)

    def _ask(self, name: str, deadline: float, **request: Any) -> bytes:
        (answer,) = self.act(flight.Action(name, json.dumps(request).encode()), deadline)
        return answer
