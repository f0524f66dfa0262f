"""Prometheus HTTP service discovery: one address that lists every metrics endpoint of the run.

A thread of the driver serves it. `/` and `/targets` return the JSON that `http_sd_configs` of Prometheus reads;
`/metrics` returns the driver's own metrics. The list includes the driver.
"""

from __future__ import annotations

import errno
import json
import logging
import threading
from collections.abc import Callable, Iterable
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import ray.util
from prometheus_client import Counter, MetricsHandler
from ray.exceptions import RayError

from actors.errors import ActorError
from archer.errors import RunError
from buffer.errors import ReplayError

Target = tuple[str, str, str]  # role, name, "host:port"
Source = Callable[[], Iterable[Target]]

log = logging.getLogger(__name__)

_FAILURES = Counter(
    "archer_discovery_source_failures", "Failed requests to a source of metrics targets", labelnames=["source"]
)


class DiscoveryServer:
    """Serves from construction until the end of its `with` block. If `port` is 0, the system chooses one.

    Each request asks every source. If a source fails (for example while its process restarts), the server lists the
    last answer of that source, logs the failure and counts it.
    """

    def __init__(self, host: str, port: int, *, run: str) -> None:
        self._run = run
        self._sources: dict[str, Source] = {}
        self._last: dict[str, list[Target]] = {}
        try:
            self._server = _Server((host, port), _Handler)
        except OSError as error:
            raise RunError(_bind_sentence(host, port, error)) from error
        self._server.discovery = self
        self.port: int = self._server.server_address[1]
        self.host = host if host not in ("0.0.0.0", "") else ray.util.get_node_ip_address()
        threading.Thread(target=self._server.serve_forever, name="discovery", daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/targets"

    def add_source(self, name: str, source: Source) -> None:
        """List the targets that `source` returns from now on."""
        self._sources[name] = source

    def clear(self) -> None:
        """Ask no source from now on; call it before the driver leaves the cluster."""
        self._sources = {}

    def targets(self) -> list[dict[str, Any]]:
        """Return one entry for each process, with the labels role, name and run."""
        found: list[Target] = [("driver", "driver", f"{self.host}:{self.port}")]
        for name, source in self._sources.copy().items():
            found.extend(self._ask(name, source))
        entries = {(role, name): address for role, name, address in found}
        return [
            {"targets": [address], "labels": {"role": role, "name": name, "run": self._run}}
            for (role, name), address in sorted(entries.items())
        ]

    def __enter__(self) -> DiscoveryServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()  # waits until the thread has left `serve_forever`
        self._server.server_close()

    def _ask(self, name: str, source: Source) -> list[Target]:
        try:
            self._last[name] = list(source())
        except (OSError, RayError, ActorError, ReplayError) as error:
            _FAILURES.labels(source=name).inc()
            log.warning("no metrics targets from %s (%s); listing its last answer", name, error)
        return self._last.get(name, [])


class _Server(ThreadingHTTPServer):
    # On some systems a second run could otherwise bind the same port and answer for the first.
    allow_reuse_port = False
    daemon_threads = True
    discovery: DiscoveryServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log the error; the default prints a traceback over the live progress if a client disconnects early."""
        log.debug("request from %s failed", client_address, exc_info=True)


class _Handler(MetricsHandler):
    server: _Server

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/metrics":
            super().do_GET()
        elif path in ("/", "/targets"):
            self._answer(200, "application/json", json.dumps(self.server.discovery.targets(), indent=1))
        else:
            self._answer(404, "text/plain; charset=utf-8", "try /targets or /metrics")

    def _answer(self, status: int, content_type: str, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.end_headers()
        self.wfile.write(text.encode() + b"\n")


def _bind_sentence(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is used by another process; choose another port for the metrics endpoint with "
            "metrics.port=..., or any free one with metrics.port=0"
        )
    if error.errno == errno.EACCES:
        return f"this process may not listen on port {port}; choose a port above 1023 with metrics.port=..."
    return (
        f"the metrics endpoint cannot listen on {host}:{port} ({error.strerror}); check metrics.host and metrics.port"
    )
