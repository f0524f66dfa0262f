"""What every Flight server shares: thread, token check, and how errors travel to the client."""

import hmac
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.flight as flight

from buffer.errors import ReplayError
from buffer.flight.network import LOOPBACK
from buffer.flight.tls import Identity


class TokenCheck(flight.ServerMiddlewareFactory):
    """Rejects every request without the header "authorization: Bearer TOKEN"."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()

    def start_call(self, info: flight.CallInfo, headers: dict[str, list[str | bytes]]) -> None:
        """Raise FlightUnauthenticatedError unless the token is right."""
        given = headers.get("authorization", [""])[0]
        given = given.encode() if isinstance(given, str) else given
        if not hmac.compare_digest(given, self._expected):
            raise flight.FlightUnauthenticatedError("this server requires its token in the authorization header")


@contextmanager
def errors_for_client(request: str) -> Iterator[None]:
    """Convert errors so that `Endpoint` raises the same class; `request` names a request that cannot be parsed."""
    try:
        yield
    except ReplayError as error:
        raise flight.FlightServerError(str(error), type(error).__name__.encode()) from error
    except (ValueError, KeyError, TypeError) as error:
        raise flight.FlightServerError(f"bad {request}: {error!r}", ReplayError.__name__.encode()) from error


class TokenServer(flight.FlightServerBase):
    """Serves clients with the token, in a thread of its own.

    A subclass sets its attributes, then calls the constructor.
    """

    def __init__(self, *, token: str, host: str = LOOPBACK, port: int = 0, identity: Identity | None = None) -> None:
        """`identity` is what the server shows by TLS; without it there is no TLS."""
        self._shown_host = f"[{host}]" if ":" in host else host
        super().__init__(
            f"grpc+{'tcp' if identity is None else 'tls'}://{self._shown_host}:{port}",
            middleware={"token": TokenCheck(token)},
            tls_certificates=None if identity is None else [(identity.certificate, identity.key)],
        )
        self._thread = threading.Thread(target=self.serve, name="flight", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """The "host:port" at which it listens."""
        return f"{self._shown_host}:{self.port}"

    def shutdown(self) -> None:
        """Stop serving, and return when the server's thread has ended.

        A thread that is still ending can close the listening socket of the next server of this process: both had the
        same file descriptor.
        """
        super().shutdown()
        self._thread.join()

    def until_closed(self) -> None:
        """Return after the shutdown.

        Arrow handles SIGINT and SIGTERM itself while it serves, and passes them to Python when it has ended. A thread
        that waits for anything else does not receive them.
        """
        self._thread.join()


class Server(TokenServer, ABC):
    """Serves do_put and actions too."""

    @abstractmethod
    def put(self, reader: flight.MetadataRecordBatchReader) -> Iterable[bytes]:
        """Yield the acknowledgement of each batch."""

    @abstractmethod
    def answer(self, action: str, body: bytes) -> bytes:
        """Return the result of an action."""

    def do_put(
        self,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
    ) -> None:
        """See `put`."""
        with errors_for_client("put"):
            for acknowledgement in self.put(reader):
                writer.write(pa.py_buffer(acknowledgement))

    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> Iterator[flight.Result]:
        """See `answer`."""
        body = action.body.to_pybytes()
        with errors_for_client(f"{action.type} {body!r}"):
            yield flight.Result(pa.py_buffer(self.answer(action.type, body)))
