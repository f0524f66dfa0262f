"""The stream of weights from learner rank 0 to the hosts of engines on other hosts."""

from __future__ import annotations

from collections.abc import Mapping

from buffer.config import FlightTls
from buffer.flight.memory_stream import MemoryServer, Offer
from buffer.flight.network import listening_address
from buffer.flight.tls import read_identity, read_trust


class WeightStream:
    """Offers memory of this process to other hosts. It listens from the first offer until `close`.

    It serves several transfers, because a server that stops waits for clients that do not answer any more.
    """

    def __init__(self, tls: FlightTls | None = None) -> None:
        self._tls = tls
        self._server: MemoryServer | None = None

    def withdraw(self) -> None:
        """Refuse further requests for what was offered, because it is about to change."""
        if self._server is not None:
            self._server.withdraw()

    def offer(self, memories: Mapping[str, memoryview]) -> Offer:
        """Offer memories by name until the next `withdraw`. Raises ReplayError if a file of TLS cannot be read."""
        if self._server is None:
            tls = self._tls
            self._server = MemoryServer(
                name="learner rank 0",
                host=listening_address(),
                identity=None if tls is None else read_identity(tls),
                trust=None if tls is None else read_trust(tls),
            )
        return self._server.offer(memories)

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None
