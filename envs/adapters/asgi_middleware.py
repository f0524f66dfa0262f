"""ASGI middleware of the servers: who may connect, a limit on HTTP bodies, and quiet disconnects of WebSockets."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect


def is_loopback(host: str) -> bool:
    """Return whether only processes of this machine reach an address: `localhost`, 127.0.0.0/8 or ::1."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """Refuses HTTP requests and WebSockets of clients that may not connect.

    With a token each must carry it: `Authorization: Bearer TOKEN`, or Basic with the token as the password. Without
    one the server listens on loopback, where web pages are the strangers: a browser of this machine opens WebSockets
    for any page. So `Host` must be an IP address or `localhost` (else a name that was pointed at this machine), and
    `Origin`, if the client sends one, must be the server's own.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and not self._admits(dict(scope["headers"])):
            await self._refuse(scope["type"], send)
        else:
            await self._app(scope, receive, send)

    def _admits(self, headers: dict[bytes, bytes]) -> bool:
        if self._token is not None:
            return hmac.compare_digest(_given_token(headers.get(b"authorization", b"")), self._token)
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin", b"").decode("latin-1")
        try:
            name = urlsplit(f"//{host}").hostname or ""  # ValueError for brackets around what is no address
            if name != "localhost":
                ipaddress.ip_address(name)
        except ValueError:
            return False
        return not origin or origin == f"http://{host}"

    async def _refuse(self, kind: str, send: Send) -> None:
        if kind == "websocket":  # before it is accepted, so the client sees 403
            await send({"type": "websocket.close", "code": 1008})
            return
        status, text = (403, "not from web pages") if self._token is None else (401, "this server requires its token")
        headers: Any = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": f'{{"detail":"{text}"}}'.encode()})


def _given_token(header: bytes) -> bytes:
    """Return the token of an `Authorization` header, or b""."""
    scheme, _, given = header.partition(b" ")
    if scheme.lower() == b"bearer":
        return given.strip()
    try:
        return base64.b64decode(given, validate=True).partition(b":")[2] if scheme.lower() == b"basic" else b""
    except binascii.Error:
        return b""


class QuietDisconnect:
    """Suppresses the error that OpenEnv raises when it closes a WebSocket that the client has already closed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except WebSocketDisconnect:
            if scope["type"] != "websocket":
                raise


class BodyLimit:
    """Answers 413 to a request with a body longer than `max_bytes`. uvicorn limits WebSocket messages only."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await self._refuse(send)
            return
        # Read the body before the application does, so that 413 can still be sent if its length was not declared.
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client disconnected
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._max_bytes:
                await self._refuse(send)
                return
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self._app(scope, replay, send)

    async def _refuse(self, send: Send) -> None:
        text = f'{{"detail":"the body is longer than the {self._max_bytes} bytes that this server accepts"}}'.encode()
        headers: Any = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": text})
