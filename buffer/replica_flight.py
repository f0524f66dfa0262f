"""The Arrow Flight endpoint of a replica, and the way of its shard to it.

Actions, whose body is a line of JSON and then the bytes, if any: "state" answers {"process", "epoch", "segments":
bytes of each}; "read" {"segment", "offset", "length"} answers bytes; "write" {"process", "epoch", "segment", "offset",
"anew"} takes bytes; "keep" {"process", "epoch", "segments"}, "commit" {"epoch", "life", "segments"} and "discard"
{"epoch"} answer nothing. See `Replica`.
"""

import json
import threading
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.flight as flight

from buffer.endpoint import Endpoint
from buffer.errors import ReplayError
from buffer.flight import Gate, refusing
from buffer.replica import Replica


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

    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> Iterator[flight.Result]:
        """Answer an action."""
        head, _, data = action.body.to_pybytes().partition(b"\n")
        with refusing(f"{action.type} {head!r}"):
            answer = self._answer(action.type, json.loads(head), data)
            yield flight.Result(pa.py_buffer(answer))

    def _answer(self, name: str, request: dict[str, Any], data: bytes) -> bytes:
        replica = self._replica
        if name == "state":
            return json.dumps(ReplicaState(replica.process, replica.epoch, replica.sizes())._asdict()).encode()
        if name == "read":
            return replica.read(**request)
        if name == "write":
            replica.write(**request, data=data)
        elif name == "keep":
            replica.keep(**request)
        elif name == "commit":
            replica.commit(**request)
        elif name == "discard":
            replica.discard(**request)
        else:
            raise ReplayError(f"no action {name!r}; a replica answers state, read, write, keep, commit and discard")
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
        self._ask("write", deadline, data, **place)

    def keep(self, process: str, epoch: int, segments: Collection[str], deadline: float) -> None:
        """See `Replica.keep`."""
        self._ask("keep", deadline, process=process, epoch=epoch, segments=list(segments))

    def commit(self, epoch: int, life: str, segments: Mapping[str, int] | None, deadline: float) -> None:
        """See `Replica.commit`."""
        self._ask("commit", deadline, epoch=epoch, life=life, segments=segments)

    def discard(self, epoch: int, deadline: float) -> None:
        """See `Replica.discard`."""
        self._ask("discard", deadline, epoch=epoch)

    def _ask(self, name: str, deadline: float, data: bytes = b"", **request: Any) -> bytes:
        body = json.dumps(request).encode() + b"\n" + data
        (answer,) = self.act(flight.Action(name, body), deadline)
        return answer
