"""The client's side of an Arrow Flight endpoint whose process may restart at another address."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.flight as flight

from buffer.errors import ReplayError, ReplayTimeout
from buffer.flight.tls import Trust, refusal

logger = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")
_LOST = (
    flight.FlightUnavailableError,
    flight.FlightTimedOutError,
    flight.FlightCancelledError,
    flight.FlightInternalError,
    OSError,
)
_ATTEMPT_S = 60.0  # Seconds after which one attempt counts as lost; the caller's deadline bounds all attempts
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.1, 2.0
"""Pause before a retry; it doubles from the first value to the last."""
_NO_PROXY = [("grpc.enable_http_proxy", 0)]
"""A proxy of the environment (http_proxy, grpc_proxy) is for the world outside, not for the processes of a run."""
_UNACKNOWLEDGED = 4  # Batches of a put that are sent before the first of them is acknowledged

Locate = Callable[[float], str]
"""Returns an endpoint "host:port" within a number of seconds. Raises ReplayError if there will never be one,
FlightUnavailableError or FlightTimedOutError if there is none yet."""


class Endpoint:
    """Requests to one process, retried until a deadline; every request must be safe to repeat.

    All methods raise ReplayTimeout at the deadline, and the ReplayError that the server raised.
    """

    def __init__(self, name: str, locate: Locate, token: str, trust: Trust | None = None) -> None:
        """`name` is what errors call the process; without `trust` the connection has no TLS."""
        self._name = name
        self._locate = locate
        self._trust = trust
        self._headers = [(b"authorization", f"Bearer {token}".encode())]
        self._client: flight.FlightClient | None = None

    def act(self, action: str, request: bytes | dict[str, Any], deadline: float) -> bytes:
        """Return the result of an action; a dict is sent as JSON."""
        body = request if isinstance(request, bytes) else json.dumps(request).encode()

        def call(client: flight.FlightClient, options: flight.FlightCallOptions) -> bytes:
            (result,) = client.do_action(flight.Action(action, body), options)
            return result.body.to_pybytes()

        return self._retry(call, action, deadline)

    def get(self, what: str, ticket: dict[str, Any], deadline: float) -> tuple[list[pa.RecordBatch], bytes]:
        """Return the batches of a do_get request and the metadata of the first; empty bytes if it has none."""

        def call(client: flight.FlightClient, options: flight.FlightCallOptions) -> tuple[list[pa.RecordBatch], bytes]:
            chunks = list(client.do_get(flight.Ticket(json.dumps(ticket).encode()), options))
            metadata = chunks[0].app_metadata
            return [chunk.data for chunk in chunks], b"" if metadata is None else metadata.to_pybytes()

        return self._retry(call, what, deadline)

    def put(
        self, what: str, batches: Sequence[pa.RecordBatch], deadline: float, *, metadata: bytes = b""
    ) -> list[bytes]:
        """Send batches of one schema, each with `metadata`; return the acknowledgement of each.

        A retry sends the batches that are not acknowledged yet.
        """
        acknowledged: list[bytes] = []

        def call(client: flight.FlightClient, options: flight.FlightCallOptions) -> list[bytes]:
            descriptor = flight.FlightDescriptor.for_path(what)
            writer, answers = client.do_put(descriptor, batches[0].schema, options)
            with writer:
                sent = len(acknowledged)
                while len(acknowledged) < len(batches):
                    while sent < min(len(batches), len(acknowledged) + _UNACKNOWLEDGED):
                        writer.write_with_metadata(batches[sent], pa.py_buffer(metadata))
                        sent += 1
                    if sent == len(batches):
                        writer.done_writing()
                    answer = answers.read()
                    if answer is None:
                        raise flight.FlightUnavailableError("the stream ended without an acknowledgement")
                    acknowledged.append(answer.to_pybytes())
            return acknowledged

        return self._retry(call, what, deadline)

    def close(self) -> None:
        """Drop the connection; the next request locates the endpoint again."""
        # Another thread may be in a call on the connection, so only the last reference closes it.
        self._client = None

    def _retry(
        self, call: Callable[[flight.FlightClient, flight.FlightCallOptions], _Answer], what: str, deadline: float
    ) -> _Answer:
        cause: Exception | None = None
        pause = _FIRST_PAUSE_S
        while (left := deadline - time.monotonic()) > 0:
            try:
                if self._client is None:
                    self._client = self._connect(self._locate(left))
                options = flight.FlightCallOptions(timeout=min(left, _ATTEMPT_S), headers=self._headers)
                return call(self._client, options)
            except flight.FlightServerError as error:
                raise self._server_error(error) from None
            except flight.FlightUnauthenticatedError as error:
                raise ReplayError(
                    f"{what}: {self._name} takes no request without its token, and this request had none or a wrong "
                    "one; read it from access.json in the replay's folder"
                ) from error
            except _LOST as error:
                if self._trust is not None and (reason := refusal(str(error))):
                    raise ReplayError(f"{what}: {self._name} cannot be trusted: {reason}") from error
                # A timeout at the deadline says less than the error of the attempt before.
                cause = cause if cause and isinstance(error, flight.FlightTimedOutError) else error
                logger.warning("%s: %s failed (%s); retrying", self._name, what, _first_line(error))
                self.close()
                time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
                pause = min(2 * pause, _LAST_PAUSE_S)
        raise ReplayTimeout(
            f"{what} waits for {self._name}, which did not answer in time"
            + (f" (last error: {_first_line(cause)})" if cause else "")
            + "; see its log"
        ) from cause

    def _connect(self, address: str) -> flight.FlightClient:
        if self._trust is None:
            return flight.FlightClient(f"grpc+tcp://{address}", generic_options=_NO_PROXY)
        return flight.FlightClient(
            f"grpc+tls://{address}",
            tls_root_certs=self._trust.authority,
            override_hostname=self._trust.name,
            generic_options=_NO_PROXY,
        )

    def _server_error(self, error: flight.FlightServerError) -> ReplayError:
        """Rebuild the error of the server from the class name that it sent."""
        name = (error.extra_info or b"").decode()
        text = str(error).split(". Detail:")[0].removeprefix("Flight error: ")
        kinds: list[type[ReplayError]] = [ReplayError, *ReplayError.__subclasses__()]
        for kind in kinds:
            if kind.__name__ == name:
                return kind(text)
        return ReplayError(f"{self._name} failed: {text}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
