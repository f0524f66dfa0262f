"""A client's way to one shard: find its Flight endpoint, try again while it restarts."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.flight as flight

import buffer.errors
from buffer.draws import Draws, Held, PriorityUpdate, Sampler, Unit
from buffer.errors import ReplayError, ReplayTimeout
from buffer.view import RowFilter
from buffer.wire import WIRE_SCHEMA

logger = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")
_GONE = (flight.FlightUnavailableError, flight.FlightTimedOutError, flight.FlightCancelledError)
_CALL_S = 60.0
"""Seconds one attempt may take before it counts as lost; the caller's deadline bounds all attempts."""
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.1, 2.0
"""Pause after a loss; doubles from one to the other."""


Locate = Callable[[float], str]
"""Finds the endpoint "host:port" of a shard within so many seconds. Raises ReplayError where there will never be one,
FlightUnavailableError or FlightTimedOutError where there is none yet."""


class Connection:
    """One shard as a client sees it. Every request may be repeated: appends are idempotent, draws are seeded."""

    def __init__(self, index: int, locate: Locate, token: str) -> None:
        self.index = index
        self._locate = locate
        self._headers = [(b"authorization", f"Bearer {token}".encode())]
        self._client: flight.FlightClient | None = None
        self.seen = 0
        """The largest number of shards that it has told of."""

    def append(self, batch: pa.RecordBatch, deadline: float) -> int:
        """Append rows in `WIRE_SCHEMA`; returns how many were new."""

        def put(client: flight.FlightClient, options: flight.FlightCallOptions) -> int:
            descriptor = flight.FlightDescriptor.for_path("append")
            writer, answers = client.do_put(descriptor, WIRE_SCHEMA, options)
            with writer:
                writer.write_batch(batch)
                writer.done_writing()
                answer = answers.read()
            if answer is None:
                raise flight.FlightUnavailableError("the stream ended without an acknowledgement")
            told = json.loads(answer.to_pybytes())
            self.seen = max(self.seen, told["shards"])
            return int(told["new"])

        return self._call(put, "append", deadline)

    def draw(self, request: dict[str, Any], deadline: float) -> list[tuple[list[pa.RecordBatch], Draws]]:
        """(batches, draws) of each sample that a do_get request asks for, read batch by batch."""
        ticket = flight.Ticket(json.dumps(request).encode())

        def get(
            client: flight.FlightClient, options: flight.FlightCallOptions
        ) -> list[tuple[list[pa.RecordBatch], Draws]]:
            samples: list[tuple[list[pa.RecordBatch], Draws]] = []
            for chunk in client.do_get(ticket, options):
                if chunk.app_metadata is not None:
                    samples.append(([], Draws.from_bytes(chunk.app_metadata.to_pybytes())))
                samples[-1][0].append(chunk.data)
            if samples:
                self.seen = max(self.seen, samples[-1][1].shards)
            return samples

        return self._call(get, "sweep" if request["draw"] is None else "sample", deadline)

    def held(self, only: RowFilter, sampler: Sampler, deadline: float) -> Held:
        """What of the shard passes the filter."""
        (body,) = self._act("held", {"only": only.as_dict(), "sampler": sampler}, deadline)
        return Held(**json.loads(body))

    def returns(self, only: RowFilter, deadline: float) -> tuple[np.ndarray, np.ndarray]:
        """(undiscounted return float64[k], turns int64[k]) of each episode of the shard that passes the filter."""
        returns, turns = self._act("returns", {"only": only.as_dict()}, deadline)
        return np.frombuffer(returns, dtype=np.float64), np.frombuffer(turns, dtype=np.int64)

    def newest(self, count: int, unit: Unit, only: RowFilter, deadline: float) -> tuple[np.ndarray, np.ndarray]:
        """(created_at int64[k], turns int64[k]) of the shard's newest episodes that pass the filter."""
        request = {"only": only.as_dict(), "count": count, "unit": unit}
        created, turns = self._act("newest", request, deadline)
        return np.frombuffer(created, dtype=np.int64), np.frombuffer(turns, dtype=np.int64)

    def update(self, seqs: np.ndarray, turns: np.ndarray, priorities: np.ndarray, deadline: float) -> int:
        """Give turns new priorities; returns how many the shard still holds."""
        body = PriorityUpdate(seqs, turns, priorities).to_bytes()
        (answer,) = self._send(flight.Action("priorities", body), deadline)
        return int(json.loads(answer)["known"])

    def known(self, ids: Sequence[str], deadline: float) -> list[bool]:
        """Of each id whether the shard has stored it."""
        (body,) = self._act("known", {"ids": list(ids)}, deadline)
        return list(json.loads(body)["known"])

    def stats(self, deadline: float) -> dict[str, int]:
        """Every number of the shard."""
        (body,) = self._act("stats", {}, deadline)
        return dict(json.loads(body))

    def _act(self, name: str, request: dict[str, Any], deadline: float) -> list[bytes]:
        """The results of an action."""
        return self._send(flight.Action(name, json.dumps(request).encode()), deadline)

    def _send(self, action: flight.Action, deadline: float) -> list[bytes]:
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
                raise _refusal(error) from None
            except flight.FlightUnauthenticatedError as error:
                raise ReplayError(
                    f"{what}: replay shard {self.index} takes no request without its token, and this one was none or "
                    "another's; access.json in the replay's folder holds it"
                ) from error
            except (*_GONE, flight.FlightInternalError, OSError) as error:
                cause = error
                logger.warning("replay shard %d: %s lost (%s); trying again", self.index, what, _first_line(error))
                self.close()
                time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
                pause = min(2 * pause, _LAST_PAUSE_S)
        raise ReplayTimeout(
            f"{what} waits for replay shard {self.index}, which did not answer in time"
            + (f" (last: {_first_line(cause)})" if cause else "")
            + "; see its log for why it does not come back"
        ) from cause

    def _connect(self, timeout_s: float) -> flight.FlightClient:
        if self._client is None:
            self._client = flight.FlightClient(f"grpc+tcp://{self._locate(timeout_s)}")
        return self._client

    def close(self) -> None:
        """Forget the connection; the next request asks for the address again."""
        # Not closed: another thread may be in a call on it. The last reference closes it.
        self._client = None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _refusal(error: flight.FlightServerError) -> ReplayError:
    """The error that the shard raised, by the name it sent along."""
    name = (error.extra_info or b"").decode()
    kind = getattr(buffer.errors, name, None)
    text = str(error).split(". Detail:")[0].removeprefix("Flight error: ")
    if isinstance(kind, type) and issubclass(kind, ReplayError):
        return kind(text)
    return ReplayError(f"the replay shard failed: {text}")
