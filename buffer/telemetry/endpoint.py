"""The metrics endpoint of a process: where it listens, and who may read it.

A process that only its own machine can reach needs no token. Beyond the machine every request needs the token of the
run's folder: metrics name the task and the speed of a run, and a shared network has other readers.
"""

import hmac
import logging
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest

from buffer.errors import ReplayError
from buffer.flight.network import LOOPBACK, is_loopback, listening_address
from buffer.telemetry.gpus import GpuCollector

log = logging.getLogger(__name__)

EVERYWHERE = ("0.0.0.0", "::")
_REQUEST_TIMEOUT_S = 10.0
_FORMAT = "text/plain; version=0.0.4; charset=utf-8"
"""The oldest format, for every client: in OpenMetrics prometheus_client writes vLLM's `vllm:x` as `vllm_x`."""

# Each counter and histogram would have a second series with the time of its creation, which nobody reads.
disable_created_metrics()


class EndpointError(ReplayError):
    """The metrics endpoint of a process cannot listen."""


class Process(NamedTuple):
    """A process of the run that serves metrics.

    Attributes:
        address: "host:port" of its endpoint; empty while the process does not run.
        restarts: how often the process was restarted; None if nobody counts it.
    """

    role: str
    name: str
    address: str
    restarts: int | None = None


@dataclass(frozen=True)
class Exposure:
    """Where the metrics endpoints of a run listen.

    Attributes:
        host: the address to listen at. None is loopback on a cluster of one node, and the address of the process's own
            node on a cluster of several.
        token: what a request from beyond the machine must present; without a token nothing but loopback is allowed.
    """

    host: str | None = None
    token: str = field(default="", repr=False)

    def serve(self, registry: CollectorRegistry) -> str:
        """Serve `registry` on a free port until the process ends, with the GPUs of the process.

        Returns "host:port", an address that other processes reach. Raises EndpointError.
        """
        bind, reachable = self._addresses()
        if GpuCollector.found():
            registry.register(GpuCollector())
        server = _listen(bind, registry, "" if is_loopback(bind) else self.token)
        threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
        return f"[{reachable}]:{server.port}" if ":" in reachable else f"{reachable}:{server.port}"

    def _addresses(self) -> tuple[str, str]:
        """Return the address to listen at and the address to announce."""
        if self.host is not None and is_loopback(self.host):
            return self.host, self.host
        import ray  # late: an inline run has no Ray

        if self.host is None:
            own = listening_address() if ray.is_initialized() and self.token else LOOPBACK
            return own, own
        if not self.token:
            raise EndpointError(f"metrics.host={self.host} is beyond this machine and needs a token; there is none")
        return self.host, ray.util.get_node_ip_address() if self.host in EVERYWHERE else self.host


def _listen(host: str, registry: CollectorRegistry, token: str) -> "_Server":
    """Return a server at a free port of `host`. With a `token`, each request must present it."""
    try:
        return _Server(host, registry, token)
    except OSError as error:
        raise EndpointError(
            f"the metrics endpoint of this process cannot listen at {host} ({error.strerror}); check metrics.host. On "
            "a cluster of several nodes leave it null: then each process listens at the address of its own node"
        ) from error


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, registry: CollectorRegistry, token: str) -> None:
        self.registry = registry
        self.token = token
        if ":" in host:
            import socket

            self.address_family = socket.AF_INET6
        super().__init__((host, 0), _Handler)
        self.port = int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log the error; the default prints a traceback over the live progress if a client disconnects early."""
        log.debug("request from %s failed", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _REQUEST_TIMEOUT_S  # a client that sends nothing would keep a thread

    def do_GET(self) -> None:
        given, expected = self.headers.get("Authorization", ""), f"Bearer {self.server.token}"
        if self.server.token and not hmac.compare_digest(given.encode(), expected.encode()):
            self._answer(401, b"this endpoint requires the token of the run's folder: `Authorization: Bearer TOKEN`\n")
        elif urlsplit(self.path).path != "/metrics":
            self._answer(404, b"try /metrics\n")
        else:
            self._answer(200, generate_latest(self.server.registry))

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing; the default prints each request."""

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", _FORMAT)
        self.send_header("Content-Length", str(len(body)))
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        self.wfile.write(body)
