"""Serving the viewer: the socket, the token, and the address to open."""

from __future__ import annotations

import errno
import secrets
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import uvicorn

from archer.errors import ConfigError
from archer.viewer.app import make_app
from archer.viewer.runs import find_runs
from archer.viewer.store import Store
from buffer.flight.network import is_loopback

_EVERYWHERE = ("0.0.0.0", "::")
"""Addresses to listen on that nobody can open."""


def serve(root: Path, *, host: str, port: int, token: str | None, ready: Callable[[str, int], None]) -> None:
    """Serve the runs in `root` until Ctrl-C; `ready` gets the address to open and the number of runs.

    On another address than loopback a token is required, a new one if none is given. Raises ConfigError if the folder
    holds no run or the address cannot be used.
    """
    runs = _require_runs(root)
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(24)
    with listening(host, port) as sock:
        store = Store(root)
        try:
            threading.Thread(target=store.refresh, daemon=True).start()
            address, query = sock.getsockname(), f"?token={token}" if token else ""
            name = socket.gethostname() if host in _EVERYWHERE else host
            shown = f"[{name}]" if ":" in name else name
            ready(f"http://{shown}:{address[1]}/{query}", runs)
            settings = uvicorn.Config(make_app(store, token), log_level="warning", access_log=False, lifespan="off")
            uvicorn.Server(settings).run(sockets=[sock])
        finally:
            store.close()


def _require_runs(root: Path) -> int:
    if not root.is_dir():
        raise ConfigError(f"{root} does not exist or is no folder; give a folder of runs such as runs/")
    runs = len(find_runs(root))
    if runs == 0:
        raise ConfigError(f"{root} contains no runs: no folder in it has a config.yaml; give the folder of your runs")
    return runs


def listening(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises ConfigError, which says what to change."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"--host {host!r} is no address of this machine: {error.strerror}") from None
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(128)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} of {host} is taken; give another with --port, or 0 for any") from None
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror}; change --host or --port") from None
    return sock
