"""TLS of the Flight endpoints, with real certificates: who is trusted, what an eavesdropper sees, wrong files."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from certificates import Authority
from pydantic import ValidationError
from relay import Relay
from replay_cases import make_batch

from buffer.client.remote import RemoteClient
from buffer.config import FlightTls, ReplayConfig
from buffer.errors import ReplayError
from buffer.flight.discovery_files import make_token, write_endpoint
from buffer.flight.tls import read_identity, read_trust
from buffer.folder_server import served_folder
from buffer.log.folders import begin, shard_directory

TOKEN = "a-token-that-nobody-guesses"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("episodes") / "a.parquet"
    pq.write_table(pa.Table.from_batches([make_batch(range(20))]), path)
    return path


@contextmanager
def serving(episodes: Path, tls: FlightTls | None) -> Iterator[str]:
    """Yield the address of a served folder."""
    identity = None if tls is None else read_identity(tls)
    with served_folder(episodes, host="127.0.0.1", port=0, token=TOKEN, identity=identity) as (server, _):
        yield f"127.0.0.1:{server.port}"


def sweep(address: str, authority: Path | None, name: str | None = None, timeout_s: float = 30.0) -> int:
    client = RemoteClient.at([address], TOKEN, authority=authority, name=name, timeout_s=timeout_s)
    try:
        return len(client.sweep())
    finally:
        client.close()


def test_a_client_trusts_the_authority_and_the_address_or_the_name(episodes: Path, authority: Authority) -> None:
    with serving(episodes, authority.sign("by-address", "127.0.0.1")) as address:
        assert sweep(address, authority.path) == 20
    with serving(episodes, authority.sign("by-name", "replay.example")) as address:
        assert sweep(address, authority.path, name="replay.example") == 20
        with pytest.raises(ReplayError, match=r"cannot be trusted: its certificate has another name"):
            sweep(address, authority.path)


def test_a_certificate_of_another_authority_or_that_has_expired_is_refused_at_once(
    episodes: Path, authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other")
    for tls in (other.sign("foreign", "127.0.0.1"), authority.sign("expired", "127.0.0.1", days=-1)):
        with serving(episodes, tls) as address, pytest.raises(ReplayError, match="not one that this client trusts"):
            sweep(address, authority.path, timeout_s=60.0)


@pytest.mark.timeout(60)
def test_neither_side_falls_back_to_a_connection_without_tls(episodes: Path, authority: Authority) -> None:
    with serving(episodes, None) as address, pytest.raises(ReplayError, match="does not speak TLS"):
        sweep(address, authority.path)
    with serving(episodes, authority.sign("strict", "127.0.0.1")) as address, pytest.raises(ReplayError):
        sweep(address, None, timeout_s=1.0)


class Tap(Relay):
    """Passes everything on to `target`, and keeps all bytes."""

    def __init__(self, target: str) -> None:
        self.heard = bytearray()
        super().__init__(target)

    def connect(self, near: socket.socket, far: socket.socket) -> None:
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                self.heard += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def test_with_tls_neither_token_nor_episodes_cross_the_network_as_they_are(
    episodes: Path, authority: Authority
) -> None:
    heard = {}
    for what, tls in (("plain", None), ("tls", authority.sign("tapped", "127.0.0.1"))):
        with serving(episodes, tls) as address:
            tap = Tap(address)
            assert sweep(tap.address, None if tls is None else authority.path) == 20
            tap.close()
            heard[what] = bytes(tap.heard)
    assert TOKEN.encode() in heard["plain"]
    assert b"episodes" in heard["plain"] or b"e7" in heard["plain"]
    assert TOKEN.encode() not in heard["tls"]
    assert len(heard["tls"]) > 10_000
    assert b"grpc" not in heard["tls"]


def test_a_client_of_the_folder_finds_what_to_trust(episodes: Path, authority: Authority, tmp_path: Path) -> None:
    """As a running replay writes it: token, authority and name in access.json, which only the owner reads."""
    tls = authority.sign("folder", "shards.example").model_copy(update={"name": "shards.example"})
    replay = tmp_path / "replay"
    begin(replay, 1)
    token = make_token(replay, read_trust(tls))
    assert (replay / "access.json").stat().st_mode & 0o777 == 0o600
    with served_folder(episodes, host="127.0.0.1", port=0, token=token, identity=read_identity(tls)) as (server, _):
        write_endpoint(shard_directory(replay, 0), f"127.0.0.1:{server.port}")
        client = RemoteClient.of_folder(replay)
        assert len(client.sweep()) == 20
        client.close()


def test_wrong_files_are_named(authority: Authority, tmp_path: Path) -> None:
    good, other = authority.sign("good", "127.0.0.1"), authority.sign("second", "127.0.0.1")
    with pytest.raises(ReplayError, match=r"good\.pem and .*second\.key are no certificate and its key"):
        read_identity(good.model_copy(update={"key": other.key}))
    with pytest.raises(ReplayError, match=r"replay\.tls\.certificate: .*nowhere\.pem cannot be read on this node"):
        read_identity(good.model_copy(update={"certificate": str(tmp_path / "nowhere.pem")}))
    os.chmod(other.key, 0o644)
    with pytest.raises(ReplayError, match=r"every user of this machine can read .*second\.key; chmod 600"):
        read_identity(other)
    with pytest.raises(ReplayError, match=r"good\.key holds no certificate in PEM"):
        read_trust(good.model_copy(update={"authority": good.key}))
    assert "PRIVATE KEY" not in repr(read_identity(good))


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValidationError, match="listen=loopback"):
        ReplayConfig(replication=2, listen="loopback")
    with pytest.raises(ValidationError, match="key"):
        ReplayConfig.model_validate({"tls": {"certificate": "a.pem"}})
