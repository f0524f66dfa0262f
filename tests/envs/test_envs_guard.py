"""Who may connect to a served environment: clients with the token, and on loopback no web page."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

pytest.importorskip("openenv", reason="needs the extra openenv: make install")

import requests
from test_envs_openenv import running
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import envs
from envs import EnvArgumentError, EnvFailedError
from envs.adapters.asgi_middleware import Guard, is_loopback
from envs.adapters.openenv_served import EnvServer

TOKEN = "a-token-that-nobody-guesses"


def admits(token: str | None, kind: str = "http", **headers: str) -> bool:
    """Return whether a guard passes a request with these headers to the application."""
    reached: list[str] = []
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["type"])

    async def send(message: Any) -> None:
        sent.append(message)

    encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    asyncio.run(Guard(app, token)({"type": kind, "headers": encoded}, None, send))  # type: ignore[arg-type]
    assert bool(reached) != bool(sent)
    return bool(reached)


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_with_a_token_every_request_must_carry_it(kind: str) -> None:
    basic = base64.b64encode(f"user:{TOKEN}".encode()).decode()
    assert admits(TOKEN, kind, Authorization=f"Bearer {TOKEN}")
    assert admits(TOKEN, kind, Authorization=f"Basic {basic}")
    for wrong in ("", "Bearer", "Bearer x", f"Bearer {TOKEN}x", TOKEN, "Basic", "Basic ???", "Basic dXNlcg==", "\xff"):
        assert not admits(TOKEN, kind, Authorization=wrong)
    assert not admits(TOKEN, kind, Host="127.0.0.1:8000")


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_without_a_token_a_web_page_is_refused(kind: str) -> None:
    for host in ("127.0.0.1:8000", "localhost:8000", "[::1]:8000"):
        assert admits(None, kind, Host=host)
        assert admits(None, kind, Host=host, Origin=f"http://{host}")
        assert not admits(None, kind, Host=host, Origin="https://a.page.example")
    # A name that its owner points at 127.0.0.1, so that a page has the server's own origin.
    assert not admits(None, kind, Host="page.example:8000", Origin="http://page.example:8000")
    for damaged in ("", "[::1::1]", "[x", "[localhost]:8000"):
        assert not admits(None, kind, Host=damaged)
    assert not admits(None, kind)


def test_a_server_with_a_token_is_played_by_who_has_it(tmp_path: Any) -> None:
    server = EnvServer("key_door", host="127.0.0.1", port=0, sessions=2, max_message_bytes=10_000, token=TOKEN)
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    with running(server.run, server.stop):
        assert requests.get(f"{server.address}/schema", timeout=30).status_code == 401
        with pytest.raises(InvalidStatus, match="403"):
            connect(server.address.replace("http", "ws") + "/ws")
        stranger = envs.make("openenv", url=server.address, action_field="text", text_field="text")
        with pytest.raises(EnvFailedError, match="openenv"):
            stranger.reset(seed=1)
        stranger.close()
        friend = envs.make("openenv", url=server.address, token_file=str(path))
        own = envs.make("key_door")
        first, info = friend.reset(seed=5)
        assert first == own.reset(seed=5)[0]
        assert friend.step("right")[0] == own.step("right")[0]
        assert TOKEN not in str(info)
        friend.close()


def test_a_server_for_other_machines_needs_a_token_and_a_url_hides_none() -> None:
    with pytest.raises(EnvArgumentError, match="accepts other machines: give a token"):
        EnvServer("key_door", host="0.0.0.0", port=0, sessions=1, max_message_bytes=1000)
    with pytest.raises(EnvArgumentError, match="give token_file"):
        envs.make("openenv", url="http://user:secret@127.0.0.1:1")
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "[::1]", "localhost", "127.9.9.9")] == [True] * 5
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", "")] == [False] * 5
