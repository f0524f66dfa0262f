"""The board: what happens in the run, in one place that anyone can publish to and wait on.

A log of events with a number and a time each; readers wait for what comes after the last one they saw (a long
poll, woken by the event itself). Beside it, the addresses at which processes serve their metrics.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

import ray
from ray.actor import ActorHandle

from archer.errors import RunError
from buffer.node_affinity import this_node

Event = dict[str, Any]
Target = tuple[str, str, str]  # role, name, "host:port"


class BoardError(RunError):
    """The board can't be reached."""


class Board:
    """Runs as an async Ray actor (see start_board). Keeps the newest `capacity` events."""

    def __init__(self, capacity: int = 50_000) -> None:
        self._events: deque[Event] = deque(maxlen=capacity)
        self._next = 0
        self._changed = asyncio.Condition()
        self._targets: dict[tuple[str, str], str] = {}

    async def publish(self, event: Event) -> int:
        """Append one event; answers its `sequence`, counted from 0."""
        sequence = self._next
        self._events.append({**event, "sequence": sequence, "time": time.time()})
        self._next += 1
        async with self._changed:
            self._changed.notify_all()
        return sequence

    async def next(self, after: int, timeout: float) -> list[Event]:
        """Events whose sequence is `after` or later, as soon as there is one; [] after `timeout` seconds without.

        Where events were dropped from the front, the first answered has a larger sequence than asked for.
        """
        if self._next <= after:
            try:
                async with asyncio.timeout(timeout), self._changed:
                    await self._changed.wait_for(lambda: self._next > after)
            except TimeoutError:
                return []
        skip = max(0, len(self._events) - (self._next - after))
        return list(self._events)[skip:]

    async def register_target(self, role: str, name: str, address: str) -> None:
        """Note where a process serves its metrics; the same role and name again replaces the address."""
        self._targets[(role, name)] = address

    async def remove_target(self, role: str, name: str) -> None:
        self._targets.pop((role, name), None)

    async def targets(self) -> list[Target]:
        return [(role, name, address) for (role, name), address in sorted(self._targets.items())]


def start_board(capacity: int = 50_000) -> ActorHandle:
    """Start the board beside this process; it reserves no CPU and serves many long polls at once."""
    return ray.remote(Board).options(num_cpus=0, max_concurrency=1000, scheduling_strategy=this_node()).remote(capacity)


class BoardPublisher:
    """Picklable; satisfies learner.protocols.Publisher.

    Each call waits for the board's answer (about a millisecond): an async actor runs calls in no set order, and
    events have to stand in the order in which they were published.
    """

    def __init__(self, board: ActorHandle, *, timeout_s: float = 30.0) -> None:
        self._board = board
        self._timeout_s = timeout_s

    def publish(self, event: Event) -> None:
        """Put one event on the board. Raises BoardError where the board can't be reached."""
        self._get(self._board.publish.remote(event))

    def register_target(self, role: str, name: str, address: str) -> None:
        """Tell the board where a process serves its metrics. Raises BoardError."""
        self._get(self._board.register_target.remote(role, name, address))

    def _get(self, ref: ray.ObjectRef) -> None:
        try:
            ray.get(ref, timeout=self._timeout_s)
        except ray.exceptions.GetTimeoutError as error:
            raise BoardError(f"the run's board gave no answer within {self._timeout_s:g} s") from error
        except ray.exceptions.RayActorError as error:
            raise BoardError("the run's board is gone: its process, or the driver that owns it, has died") from error


class BoardFollower:
    """A thread that hands every event of the board, in order, to `handle`. Use as a context manager."""

    def __init__(self, board: ActorHandle, handle: Callable[[Event], None], *, poll_s: float = 5.0) -> None:
        self._board = board
        self._handle = handle
        self._poll_s = poll_s
        self._after = 0
        self._stop = threading.Event()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="board-follower")
        self._done: Future[None] | None = None

    def __enter__(self) -> "BoardFollower":
        self._done = self._executor.submit(self._follow)
        return self

    def __exit__(self, exception_type: type[BaseException] | None, *_: object) -> None:
        if exception_type is None:
            self.close()
        else:  # the error on its way out matters more than the follower's own
            with suppress(BoardError):
                self._end(timeout_s=10.0)

    @property
    def done(self) -> Future[None]:
        """Ends when the thread does: early only where `handle` raised or the board is gone."""
        assert self._done is not None, "enter the follower first"
        return self._done

    def check(self) -> None:
        """Raise what `handle` raised, or BoardError, where the thread has ended early; else return at once."""
        if self._done is not None and self._done.done():
            self._done.result()

    def close(self, *, timeout_s: float = 30.0) -> None:
        """Handle what is on the board now, then end; raises what `handle` raised, or BoardError."""
        if self._done is None:
            return
        self._end(timeout_s)
        self._done.result()

    def _end(self, timeout_s: float) -> None:
        """Wait for the thread: it must not be in a call of Ray's when the cluster is left."""
        if self._done is None:
            return
        self._stop.set()
        if not self._done.done():
            self._board.publish.remote({"kind": "end"})  # wakes the long poll
        self._executor.shutdown(wait=False)
        if not wait([self._done], timeout=timeout_s).done:
            raise BoardError(f"the board's follower didn't end within {timeout_s:g} s")

    def _follow(self) -> None:
        while True:
            last_round = self._stop.is_set()
            events = self._next(0.0 if last_round else self._poll_s)
            for event in events:
                self._after = event["sequence"] + 1
                if event["kind"] != "end":
                    self._handle(event)
            if last_round and not events:
                return

    def _next(self, timeout: float) -> list[Event]:
        try:
            return ray.get(self._board.next.remote(self._after, timeout), timeout=timeout + 30.0)
        except ray.exceptions.GetTimeoutError as error:
            raise BoardError(f"the run's board gave no answer within {timeout + 30.0:g} s") from error
        except ray.exceptions.RayActorError as error:
            raise BoardError("the run's board is gone: its process has died") from error
