"""Memory read from another host: every byte arrives, connections that break or stall, tokens, TLS."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.flight as flight
import pytest
from certificates import Authority
from relay import Relay

from buffer.errors import ReplayError, ReplayTimeout
from buffer.flight import memory_stream
from buffer.flight.memory_stream import MemoryServer, Offer, read_into
from buffer.flight.tls import read_identity, read_trust

SIZE = 300_001
CONTENT = np.random.default_rng(0).bytes(SIZE)
A = {"a": memoryview(CONTENT)}


class Wire(Relay):
    """A connection to `target` that passes `limit` bytes of the server, and is then cut or passes nothing more.

    With `mended`, the connections after the first one pass everything.
    """

    def __init__(self, target: str, limit: int, *, cut: bool, mended: bool = False) -> None:
        self._limit, self._cut, self._mended = limit, cut, mended
        self.connections = 0
        super().__init__(target)

    def connect(self, near: socket.socket, far: socket.socket) -> None:
        limit = SIZE * 100 if self._mended and self.connections else self._limit
        self.connections += 1
        threading.Thread(target=self._pass, args=(near, far, limit), daemon=True).start()

    def _pass(self, near: socket.socket, far: socket.socket, limit: int) -> None:
        try:
            while limit > 0:
                for ready in select.select([near, far], [], [])[0]:
                    data = ready.recv(1 << 14)
                    if not data:
                        self._cut_now(near, far)
                        return
                    (far if ready is near else near).sendall(data)
                    limit -= len(data) if ready is far else 0
            if self._cut:
                self._cut_now(near, far)
        except OSError:
            return

    def _cut_now(self, *ends: socket.socket) -> None:
        for end in ends:
            end.shutdown(socket.SHUT_RDWR)


@pytest.fixture(autouse=True)
def _small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several requests, of several batches each."""
    monkeypatch.setattr(memory_stream, "RANGE", 64 << 10)
    monkeypatch.setattr(memory_stream, "_BATCH", 10_000)


@pytest.fixture
def server() -> Iterator[MemoryServer]:
    found = MemoryServer(name="learner rank 0", host="127.0.0.1")
    yield found
    found.shutdown()


@contextmanager
def target(size: int = SIZE) -> Iterator[int]:
    file = os.memfd_create("target")
    os.truncate(file, size)
    yield file
    os.close(file)


def read(offer: Offer, timeout_s: float = 30.0) -> bytes:
    """Return what arrives of the memory "a"."""
    with target() as file:
        read_into({"a": file}, offer, timeout_s)
        return os.pread(file, SIZE, 0)


def test_every_byte_arrives_from_each_memory(server: MemoryServer) -> None:
    with target() as a, target(3) as b:
        read_into({"a": a, "b": b}, server.offer({**A, "b": memoryview(b"xyz")}), 30.0)
        assert os.pread(a, SIZE, 0) == CONTENT
        assert os.pread(b, 9, 0) == b"xyz"


def test_a_connection_that_is_cut_and_mended_goes_on_at_the_range(server: MemoryServer) -> None:
    wire = Wire(server.address, 100_000, cut=True, mended=True)
    assert read(replace(server.offer(A), address=wire.address)) == CONTENT
    assert wire.connections == 2
    wire.close()


@pytest.mark.parametrize("cut", [True, False])
def test_a_connection_that_stays_cut_or_stalls_ends_in_time(server: MemoryServer, cut: bool) -> None:
    wire = Wire(server.address, 30_000, cut=cut)
    with pytest.raises(ReplayTimeout, match=r"reading bytes 0 to 65536 of 300001 waits for learner rank 0"):
        read(replace(server.offer(A), address=wire.address), 1.5)
    wire.close()


def test_a_server_that_ends_and_a_host_that_does_not_answer_are_named(server: MemoryServer) -> None:
    offer = server.offer(A)
    server.shutdown()
    with pytest.raises(ReplayTimeout, match="learner rank 0, which did not answer in time"):
        read(offer, 1.0)


def test_nobody_reads_without_the_token_of_this_server(server: MemoryServer) -> None:
    offer = server.offer(A)
    assert offer.token not in repr(offer)
    with pytest.raises(ReplayError, match="learner rank 0 takes no request without its token"):
        read(replace(offer, token="another"))
    client = flight.connect(f"grpc://{offer.address}")
    with pytest.raises(flight.FlightUnauthenticatedError):
        client.do_get(flight.Ticket(b"{}"))


def test_content_that_is_about_to_change_is_refused(server: MemoryServer) -> None:
    old = server.offer(A)
    server.withdraw()
    with pytest.raises(ReplayError, match="learner rank 0 has replaced this content"):
        read(old)
    assert read(server.offer(A)) == CONTENT


@pytest.mark.parametrize(("offset", "length"), [(-1, 5), (0, 0), (SIZE - 1, 2), (SIZE, 1)])
def test_ranges_outside_of_the_memory_are_refused(server: MemoryServer, offset: int, length: int) -> None:
    offer = server.offer(A)
    ticket = b'{"name": "a", "turn": 0, "offset": %d, "length": %d}' % (offset, length)
    options = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer " + offer.token.encode())])
    with pytest.raises(flight.FlightServerError, match="exceed a memory of 300001 bytes"):
        flight.connect(f"grpc://{offer.address}").do_get(flight.Ticket(ticket), options)


def test_tls_encrypts_and_only_its_authority_is_trusted(tmp_path: Path) -> None:
    tls = Authority(tmp_path).sign("learner", "127.0.0.1")
    identity, trust = read_identity(tls), read_trust(tls)
    server = MemoryServer(name="rank 0", host="127.0.0.1", identity=identity, trust=trust)
    offer = server.offer(A)
    assert read(offer) == CONTENT
    with pytest.raises(ReplayError, match="not one that this client trusts"):
        read(replace(offer, trust=replace(trust, authority=Authority(tmp_path, "other").path.read_bytes())))
    server.shutdown()
