"""The board: the queue that carries events from the learner's ranks to the driver.

The queue is an actor on the driver's node. Ranks publish through `BoardPublisher`; one `BoardFollower` in the driver
hands each event to a callback. docs/architecture.md describes the events. Where a connection breaks, the call is
repeated: the board knows each event by a key, and keeps an event until the follower has received it.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError

from archer.driver.metrics import BoardMetrics
from archer.errors import RunError
from buffer.node_affinity import this_node
from buffer.telemetry.endpoint import Exposure, Process

Event = dict[str, Any]
_ADDRESS_TIMEOUT_S = 2.0
_BROKEN_S = 60.0
"""Seconds for which a call is repeated while the connection to the board is broken."""
_AGAIN_S = 0.2
_KEYS = 4096
"""Keys of the latest events, among which the board looks for a repeated one."""


class BoardError(RunError):
    """The board cannot be reached."""


class Board:
    """An unbounded queue of events for one follower; an async Ray actor that serves its own metrics."""

    def __init__(self, exposure: Exposure) -> None:
        self._events: deque[Event] = deque()
        self._received = 0  # events that the follower has and the queue no longer
        self._keys: deque[str] = deque(maxlen=_KEYS)
        self._arrived = asyncio.Event()
        metrics = BoardMetrics()
        metrics.waiting.set_function(lambda: len(self._events))
        self._published = metrics.events
        self._address = exposure.serve(metrics.registry)

    async def put(self, event: Event, key: str) -> None:
        """Append an event, unless it is a repetition of one with the same key."""
        if key in self._keys:
            return
        self._keys.append(key)
        self._published.labels(event["kind"]).inc()
        self._events.append(event)
        self._arrived.set()

    async def get(self, received: int) -> Event:
        """Wait for the event that follows the first `received` ones, and return it."""
        while self._received < received:
            self._events.popleft()
            self._received += 1
        while not self._events:
            self._arrived.clear()
            await self._arrived.wait()
        return self._events[0]

    async def metrics_address(self) -> str:
        """Return "host:port" of the metrics endpoint."""
        return self._address


def start_board(exposure: Exposure | None = None) -> ActorHandle:
    """Return a new board on the node of this process; it reserves no CPU."""
    board = ray.remote(Board).options(num_cpus=0, scheduling_strategy=this_node())
    return board.remote(exposure or Exposure())


class BoardPublisher:
    """Puts events on the board from any process. Picklable; implements `learner.protocols.Publisher`.

    Each call waits until the queue has acknowledged the event (a few milliseconds), because an async actor may reorder
    calls that are in flight together.
    """

    def __init__(self, board: ActorHandle, *, timeout_s: float = 30.0) -> None:
        self._board = board
        self._timeout_s = timeout_s

    def publish(self, event: Event) -> None:
        """Put one event on the board. Raises BoardError."""
        key = uuid.uuid4().hex
        try:
            _connected(lambda: ray.get(self._board.put.remote(event, key), timeout=self._timeout_s))
        except GetTimeoutError as error:
            raise BoardError(f"the run's board did not answer within {self._timeout_s:g} s") from error
        except RayActorError as error:
            raise BoardError("the run's board is gone: its process, or the driver that owns it, has died") from error

    def register_target(self, role: str, name: str, address: str) -> None:
        """Announce the address at which a process serves its metrics. A later call for the same role and name replaces
        the address. Raises BoardError."""
        self.publish({"kind": "target", "role": role, "name": name, "address": address})


class BoardFollower:
    """A thread that calls `handle` with each event of the board, in order. Use as a context manager.

    The follower adds the driver's `time` to each event, and keeps the metrics targets that ranks register.
    """

    done: Future[None]
    """Ends when the thread ends: before `__exit__` only if `handle` raised or the board is gone."""

    def __init__(self, board: ActorHandle, handle: Callable[[Event], None]) -> None:
        self._board = board
        self._handle = handle
        self._received = 0
        self._targets: dict[tuple[str, str], str] = {}
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="board-follower")

    def __enter__(self) -> BoardFollower:
        self.done = self._executor.submit(self._follow)
        return self

    def __exit__(self, exception_type: type[BaseException] | None, *_: object) -> None:
        if exception_type is None:
            self._end(timeout_s=30.0)
            self.check()
        else:
            with suppress(BoardError):  # the first error explains more than an error of the follower
                self._end(timeout_s=10.0)

    def check(self) -> None:
        """Raise the error of `handle`, or BoardError, if the thread has ended with one."""
        if self.done.done():
            self.done.result()

    def processes(self) -> list[Process]:
        """Return the board, and each process that has registered its metrics endpoint."""
        found = [Process(role, name, address) for (role, name), address in sorted(self._targets.copy().items())]
        return [Process("board", "board", self._address()), *found]

    def _address(self) -> str:
        try:
            return ray.get(self._board.metrics_address.remote(), timeout=_ADDRESS_TIMEOUT_S)
        except (GetTimeoutError, ActorUnavailableError):
            return ""

    def _end(self, timeout_s: float) -> None:
        """Let the thread handle the events before this call, then wait for its end: a call of Ray's must not be in
        flight when the driver leaves the cluster."""
        if not self.done.done():
            BoardPublisher(self._board, timeout_s=timeout_s).publish({"kind": "end"})
        self._executor.shutdown(wait=False)
        if not wait([self.done], timeout=timeout_s).done:
            raise BoardError(f"the board's follower did not end within {timeout_s:g} s")

    def _follow(self) -> None:
        while (event := self._next())["kind"] != "end":
            if event["kind"] == "target":
                self._targets[event["role"], event["name"]] = event["address"]
            else:
                self._handle({**event, "time": time.time()})

    def _next(self) -> Event:
        try:
            event: Event = _connected(lambda: ray.get(self._board.get.remote(self._received)))
        except RayActorError as error:
            raise BoardError("the run's board is gone: its process has died") from error
        self._received += 1
        return event


def _connected(call: Callable[[], Any]) -> Any:
    """Return the result of a call of the board. It is repeated for `_BROKEN_S` while the connection is broken."""
    until = time.monotonic() + _BROKEN_S
    while True:
        try:
            return call()
        except ActorUnavailableError as error:
            if time.monotonic() > until:
                raise BoardError(f"the connection to the run's board has been broken for {_BROKEN_S:g} s") from error
            time.sleep(_AGAIN_S)
