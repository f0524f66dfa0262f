"""A server between a client and another server, for tests of what crosses the network."""

from __future__ import annotations

import socket
import threading
from abc import ABC, abstractmethod


class Relay(ABC):
    """Accepts connections at `address`, and opens one to `target` ("host:port") for each.

    A subclass passes the bytes on.
    """

    def __init__(self, target: str) -> None:
        host, port = target.split(":")
        self._target = host, int(port)
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._open += [near, far]
            self.connect(near, far)

    @abstractmethod
    def connect(self, near: socket.socket, far: socket.socket) -> None:
        """Start threads that pass bytes between the client's end and the server's."""

    def close(self) -> None:
        """Accept no more, and close all connections."""
        for end in (self._listener, *self._open):
            end.close()
