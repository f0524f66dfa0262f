"""The Arrow Flight endpoint of a replica, and the requests of its shard.

- do_put: batches of one binary value, the bytes to write. Their metadata are the place: JSON {"process", "epoch",
  "segment", "offset", "new_epoch"}. Each batch is acknowledged when it is written. (An action with the bytes in its
  body takes twice as long.)
- actions, with JSON requests: "state" answers JSON {"process", "epoch", "segments": bytes of each}; "read" {"segment",
  "offset", "length"} answers bytes; "keep" {"process", "epoch", "segments"}, "commit" {"epoch", "life", "segments"} and
  "discard" {"epoch"} answer nothing.

See `Replica` for their meaning.
"""

import json
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.flight as flight

from buffer.episodes.wire import binary_array, binary_parts
from buffer.errors import ReplayError
from buffer.flight.endpoint import Endpoint
from buffer.flight.network import LOOPBACK
from buffer.flight.serving import Server
from buffer.flight.tls import Identity
from buffer.replication.replica import Replica

_BYTES = pa.schema([("bytes", pa.binary())])


class ReplicaState(NamedTuple):
    """The contents of a replica."""

    process: str
    epoch: int
    segments: dict[str, int]  # Bytes of each segment


class ReplicaServer(Server):
    """Serves one replica."""

    def __init__(self, replica: Replica, *, token: str, host: str = LOOPBACK, identity: Identity | None = None) -> None:
        self._replica = replica
        super().__init__(token=token, host=host, identity=identity)

    def put(self, reader: flight.MetadataRecordBatchReader) -> Iterator[bytes]:
        """Write bytes and acknowledge them."""
        for chunk in reader:
            _, data = binary_parts(chunk.data.column(0))
            self._replica.write(**json.loads(chunk.app_metadata.to_pybytes()), data=data.data)
            yield b"{}"

    def answer(self, action: str, body: bytes) -> bytes:
        """Answer an action."""
        replica = self._replica
        if action == "state":
            return json.dumps(ReplicaState(replica.process, replica.epoch, replica.sizes())._asdict()).encode()
        if action not in ("read", "keep", "commit", "discard"):
            raise ReplayError(
                f"no action {action!r}; the actions of a replica are state, read, keep, commit and discard"
            )
        return getattr(replica, action)(**json.loads(body)) or b""


def write(
    replica: Endpoint, state: ReplicaState, segment: str, offset: int, data: bytes, deadline: float, *, new_epoch: bool
) -> None:
    """Do as `Replica.write`; process and epoch are those of `state`."""
    place = {"process": state.process, "epoch": state.epoch, "segment": segment, "offset": offset}
    batch = pa.RecordBatch.from_arrays([binary_array(data, np.array([len(data)]))], schema=_BYTES)
    replica.put("write", [batch], deadline, metadata=json.dumps({**place, "new_epoch": new_epoch}).encode())
