"""Prometheus HTTP service discovery: one address that lists every metrics endpoint of the run as it is now.

Served by a thread of the driver. `/` and `/targets` answer the JSON that Prometheus' `http_sd_configs` reads,
`/metrics` the driver's own metrics; the driver lists itself too.
"""

import errno
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import REGISTRY, CollectorRegistry, Counter
from prometheus_client.exposition import choose_encoder

from archer.errors import RunError

Target = tuple[str, str, str]  # role, name, "host:port"
Source = Callable[[], Iterable[Target]]

log = logging.getLogger(__name__)


class DiscoveryError(RunError):
    """The discovery endpoint can't be served."""


class DiscoveryServer:
    """Serves from construction until close(). `port` 0 takes any free one; the one taken is in `port`.

    A source is asked on each request. Where one fails (its process is being restarted, say), its last answer is
    listed again, which is also what Prometheus does when discovery fails, and the failure is logged and counted.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        run: str,
        sources: Mapping[str, Source],
        registry: CollectorRegistry = REGISTRY,
        source_errors: tuple[type[Exception], ...] = (OSError, TimeoutError),
    ) -> None:
        self._run = run
        self._sources = dict(sources)
        self._source_errors = source_errors
        self._last: dict[str, list[Target]] = {}
        self._registry = registry
        self._failures = _failure_counter(registry)
        try:
            self._server = _Server((host, port), _Handler)
        except OSError as error:
            raise DiscoveryError(_bind_sentence(host, port, error)) from error
        self._server.discovery = self
        self.port: int = self._server.server_address[1]
        self.host = host if host not in ("0.0.0.0", "") else _own_address()
        self._thread = threading.Thread(target=self._server.serve_forever, name="discovery", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/targets"

    def targets(self) -> list[dict[str, Any]]:
        """What Prometheus reads: one entry per process, with labels role, name and run."""
        found: list[Target] = [("driver", "driver", f"{self.host}:{self.port}")]
        for name in self._sources:
            found.extend(self._ask(name))
        entries = {(role, name): address for role, name, address in found}
        return [
            {"targets": [address], "labels": {"role": role, "name": name, "run": self._run}}
            for (role, name), address in sorted(entries.items())
        ]

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """The driver's own metrics in the form asked for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def close(self) -> None:
        """Stop serving and give the port back."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10.0)

    def __enter__(self) -> "DiscoveryServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, source: str) -> list[Target]:
        try:
            self._last[source] = list(self._sources[source]())
        except self._source_errors as error:
            self._failures.labels(source=source).inc()
            log.warning("metrics targets of %s are not to be had (%s); listing the last known ones", source, error)
        return self._last.get(source, [])


class _Server(ThreadingHTTPServer):
    # Without this a second run could bind the same port on some systems and answer for the first.
    allow_reuse_port = False
    daemon_threads = True
    discovery: DiscoveryServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up early is no news; the default would print a traceback over the live progress."""
        log.debug("request from %s failed", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path in ("/", "/targets"):
            body = json.dumps(self.server.discovery.targets(), indent=1).encode() + b"\n"
            self._answer(200, body, "application/json")
        elif path == "/metrics":
            body, content_type = self.server.discovery.metrics(self.headers.get("Accept", ""))
            self._answer(200, body, content_type)
        else:
            self._answer(404, b"try /targets or /metrics\n", "text/plain; charset=utf-8")

    def _answer(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)


def _failure_counter(registry: CollectorRegistry) -> Counter:
    """One counter per registry, made anew where a process has several servers one after the other."""
    if registry not in _counters:
        _counters[registry] = Counter(
            "archer_discovery_source_failures",
            "Times that a source of metrics targets could not be asked",
            ["source"],
            registry=registry,
        )
    return _counters[registry]


_counters: dict[CollectorRegistry, Counter] = {}


def _own_address() -> str:
    """The address by which other machines reach this one; the loopback's where it is on no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # reserved for documentation: asks for the route, sends nothing
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _bind_sentence(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is taken by another process, so the metrics endpoint can't be served there; "
            "choose another with metrics.port=..., or metrics.port=0 for any free one"
        )
    if error.errno == errno.EACCES:
        return f"port {port} needs rights that this process doesn't have; choose one above 1023 with metrics.port=..."
    return f"the metrics endpoint can't listen on {host}:{port} ({error.strerror}); check metrics.host and metrics.port"
