"""What every Flight server of the replay shares: the token check, and how errors travel to the client."""

import hmac
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow.flight as flight

from buffer.errors import ReplayError


class TokenCheck(flight.ServerMiddlewareFactory):
    """Rejects every request without the header "authorization: Bearer TOKEN"."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()

    def start_call(self, info: flight.CallInfo, headers: dict[str, list[str | bytes]]) -> None:
        """Raise FlightUnauthenticatedError unless the token is right."""
        given = headers.get("authorization", [""])[0]
        given = given.encode() if isinstance(given, str) else given
        if not hmac.compare_digest(given, self._expected):
            raise flight.FlightUnauthenticatedError("this replay requires its token in the authorization header")


@contextmanager
def errors_for_client(request: str) -> Iterator[None]:
    """Convert errors so that `Endpoint` raises the same class; `request` names a request that cannot be parsed."""
    try:
        yield
    except ReplayError as error:
        raise flight.FlightServerError(str(error), type(error).__name__.encode()) from error
    except (ValueError, KeyError, TypeError) as error:
        raise flight.FlightServerError(f"bad {request}: {error!r}", ReplayError.__name__.encode()) from error
