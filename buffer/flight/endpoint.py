"""A way to an Arrow Flight endpoint whose process may restart somewhere else: find it, ask, try again."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

import pyarrow.flight as flight

import buffer.errors
from buffer.errors import ReplayError, ReplayTimeout

logger = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")
_GONE = (flight.FlightUnavailableError, flight.FlightTimedOutError, flight.FlightCancelledError)
_CALL_S = 60.0
"""Seconds one attempt may take before it counts as lost; the caller's deadline bounds all attempts."""
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.1, 2.0
"""Pause after a loss; doubles from one to the other."""

Locate = Callable[[float], str]
"""Finds an endpoint "host:port" within so many seconds. Raises ReplayError where there will never be one,
FlightUnavailableError or FlightTimedOutError where there is none yet."""


class Endpoint:
    """One process as those who ask it see it. Every request may be repeated."""

    def __init__(self, name: str, locate: Locate, token: str) -> None:
        """`name` is what errors call it."""
        self._name = name
        self._locate = locate
        self._headers = [(b"authorization", f"Bearer {token}".encode())]
        self._client: flight.FlightClient | None = None

    def act(self, action: flight.Action, deadline: float) -> list[bytes]:
        """The results of an action. Raises ReplayTimeout, and what the other side raised."""

        def act(client: flight.FlightClient, options: flight.FlightCallOptions) -> list[bytes]:
            return [result.body.to_pybytes() for result in client.do_action(action, options)]

        return self._call(act, action.type, deadline)

    def _call(
        self,
        request: Callable[[flight.FlightClient, flight.FlightCallOptions], _Answer],
        what: str,
        deadline: float,
    ) -> _Answer:
        """Run the request until it is answered; a new address is asked for after each loss."""
        cause: Exception | None = None
        pause = _FIRST_PAUSE_S
        while (left := deadline - time.monotonic()) > 0:
            try:
                client = self._connect(left)
                options = flight.FlightCallOptions(timeout=min(left, _CALL_S), headers=self._headers)
                return request(client, options)
            except flight.FlightServerError as error:
                raise self._refusal(error) from None
            except flight.FlightUnauthenticatedError as error:
                raise ReplayError(
                    f"{what}: {self._name} takes no request without its token, and this one was none or another's; "
                    "access.json in the replay's folder holds it"
                ) from error
            except (*_GONE, flight.FlightInternalError, OSError) as error:
                # That the time was up says less than what the other side said before.
                cause = cause if cause and isinstance(error, flight.FlightTimedOutError) else error
                logger.warning("%s: %s lost (%s); trying again", self._name, what, _first_line(error))
                self.close()
                time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
                pause = min(2 * pause, _LAST_PAUSE_S)
        raise ReplayTimeout(
            f"{what} waits for {self._name}, which did not answer in time"
            + (f" (last: {_first_line(cause)})" if cause else "")
            + "; see its log for why it does not come back"
        ) from cause

    def _connect(self, timeout_s: float) -> flight.FlightClient:
        if self._client is None:
            self._client = flight.FlightClient(f"grpc+tcp://{self._locate(timeout_s)}")
        return self._client

    def _refusal(self, error: flight.FlightServerError) -> ReplayError:
        """The error that the other side raised, by the name it sent along."""
        name = (error.extra_info or b"").decode()
        kind = getattr(buffer.errors, name, None)
        text = str(error).split(". Detail:")[0].removeprefix("Flight error: ")
        if isinstance(kind, type) and issubclass(kind, ReplayError):
            return kind(text)
        return ReplayError(f"{self._name} failed: {text}")

    def close(self) -> None:
        """Forget the connection; the next request asks for the address again."""
        # Not closed: another thread may be in a call on it. The last reference closes it.
        self._client = None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
