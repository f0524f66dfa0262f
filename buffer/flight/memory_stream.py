"""Memory of one process, read from another host by Arrow Flight.

The ticket of do_get is JSON {"name", "turn", "offset", "length"}: a range of bytes of a named memory. The stream
carries them in one column of bytes. The reader requests range after range, so that a connection that breaks costs one.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.flight as flight

from buffer.errors import ReplayError
from buffer.flight.endpoint import Endpoint
from buffer.flight.serving import TokenServer, errors_for_client
from buffer.flight.tls import Identity, Trust

RANGE = 64 << 20
"""Bytes of one request. A request that has no answer within a minute is repeated (`buffer.flight.endpoint`)."""
_BATCH = 1 << 20
_SCHEMA = pa.schema([("bytes", pa.uint8())])


@dataclass(frozen=True)
class Offer:
    """Memories that a server offers for reading.

    Attributes:
        name: what errors call the server.
        address: "host:port".
        turn: number of the content, which the reader must request.
        sizes: bytes of each memory, by its name.
    """

    name: str
    address: str
    token: str = field(repr=False)
    trust: Trust | None
    turn: int
    sizes: dict[str, int]


class MemoryServer(TokenServer):
    """Serves ranges of memories to clients with the token, which each server makes for itself."""

    def __init__(self, *, name: str, host: str, identity: Identity | None = None, trust: Trust | None = None) -> None:
        """`identity` is what the server shows by TLS, and `trust` what its readers then need; None for no TLS."""
        self._memories: Mapping[str, memoryview] = {}
        self._token = secrets.token_urlsafe(24)
        self._turn = 0
        self._name, self._trust = name, trust
        super().__init__(token=self._token, host=host, identity=identity)

    def withdraw(self) -> None:
        """Refuse all further requests for what was offered, because it is about to change."""
        self._turn += 1
        self._memories = {}

    def offer(self, memories: Mapping[str, memoryview]) -> Offer:
        """Offer memories by name until the next `withdraw`."""
        self._memories = memories
        sizes = {name: memory.nbytes for name, memory in memories.items()}
        return Offer(self._name, self.address, self._token, self._trust, self._turn, sizes)

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.RecordBatchStream:
        """Send a range of a memory."""
        with errors_for_client(f"ticket {ticket.ticket!r}"):
            wanted = json.loads(ticket.ticket)
            if wanted["turn"] != self._turn:
                raise ReplayError(f"{self._name} has replaced this content by a newer one")
            memory, offset, length = self._memories[wanted["name"]], int(wanted["offset"]), int(wanted["length"])
            if offset < 0 or length < 1 or offset + length > memory.nbytes:
                raise ReplayError(f"bytes {offset} to {offset + length} exceed a memory of {memory.nbytes} bytes")
            end = offset + length
            parts = [memory[start : min(start + _BATCH, end)] for start in range(offset, end, _BATCH)]
        reader = pa.RecordBatchReader.from_batches(_SCHEMA, map(_batch, parts))
        return flight.RecordBatchStream(reader)


def _batch(part: memoryview) -> pa.RecordBatch:
    """Return the bytes as a batch, without a copy."""
    column = pa.Array.from_buffers(pa.uint8(), part.nbytes, [None, pa.py_buffer(part)])
    return pa.RecordBatch.from_arrays([column], schema=_SCHEMA)


def read_into(files: Mapping[str, int], offer: Offer, timeout_s: float) -> None:
    """Write each memory of an offer into the file descriptor of its name.

    Raises ReplayTimeout after `timeout_s`, and ReplayError if the server refuses.
    """
    deadline = time.monotonic() + timeout_s
    endpoint = Endpoint(offer.name, lambda _: offer.address, offer.token, offer.trust)
    try:
        for name, size in offer.sizes.items():
            for offset in range(0, size, RANGE):
                length = min(RANGE, size - offset)
                ticket = {"name": name, "turn": offer.turn, "offset": offset, "length": length}
                what = f"reading bytes {offset} to {offset + length} of {size}"
                batches, _ = endpoint.get(what, ticket, deadline)
                _write(files[name], batches, offset, length)
    finally:
        endpoint.close()


def _write(file: int, batches: list[pa.RecordBatch], offset: int, length: int) -> None:
    """Write the bytes of `batches` to the file. Raises ReplayError if they are not `length`."""
    if (got := sum(batch.num_rows for batch in batches)) != length:
        raise ReplayError(f"the server sent {got} bytes in place of {length}")
    for batch in batches:
        column = batch.column(0)
        part = memoryview(column.buffers()[1])[column.offset : column.offset + len(column)]
        while part:
            written = os.pwrite(file, part, offset)
            part, offset = part[written:], offset + written
