"""Who may read the pages: the token, the name of the host, and the headers that keep a page to itself."""

from __future__ import annotations

import secrets
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "archer-view"
_LOOPBACK = {"localhost", "127.0.0.1", "[::1]", "::1"}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Access:
    """Refuses requests without the token, if there is one, and else requests by another name than this machine's own.

    A page of another site can let a browser resolve its own name to 127.0.0.1. Such a request has that name as its
    host, so without a token only loopback names are answered.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
            await send(message)

        refusal = self._answer(Request(scope))
        await (refusal or self._app)(scope, receive, dressed)

    def _answer(self, request: Request) -> Response | None:
        """Return the answer to a request that may not pass, or that hands over its token; else None."""
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("this viewer only answers GET\n", 405)
        if self._token is None:
            host = request.headers.get("host", "")
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name in _LOOPBACK:
                return None
            return PlainTextResponse("this viewer answers to localhost only; start it with --host for others\n", 421)
        given = request.query_params.get("token")
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if any(self._right(value) for value in (request.cookies.get(COOKIE), bearer)):
            return None if given is None else _without_token(request)
        if self._right(given):
            answer = _without_token(request)
            answer.set_cookie(COOKIE, self._token, httponly=True, samesite="strict")
            return answer
        said = "the token is wrong" if given or bearer or COOKIE in request.cookies else "a token is missing"
        return PlainTextResponse(f"{said}; open the address that `archer view` has printed\n", 401)

    def _right(self, value: str | None) -> bool:
        return bool(value) and secrets.compare_digest((value or "").encode(), (self._token or "").encode())


def _without_token(request: Request) -> Response:
    """Return a redirect to the same page without the token, so that it stays in no address bar and in no history."""
    kept = urlencode([(key, value) for key, value in parse_qsl(request.url.query) if key != "token"])
    return RedirectResponse(request.url.path + (f"?{kept}" if kept else ""), 303)
