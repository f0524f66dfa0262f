"""A tracker in a thread of its own: what it raises, and how long it takes, is no matter of the run."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from archer.trackers.base import Tracker

_WAITING = 1000
"""Calls that may wait. A tracker that is slower than that loses calls."""
_CLOSE_TIMEOUT_S = 30.0

log = logging.getLogger(__name__)
Call = Callable[[Tracker], None]


class IsolatedTracker:
    """Opens a tracker and makes its calls, in order, in one thread. After its first error it does nothing.

    Args:
        open_: returns the tracker; called in the thread.
        say: shows a sentence to the user; called once, if the tracker fails, loses calls or does not end.
    """

    def __init__(self, name: str, open_: Callable[[], Tracker], say: Callable[[str], None]) -> None:
        self._name = name
        self._open = open_
        self._say = say
        self._calls: queue.Queue[Call | None] = queue.Queue(_WAITING)
        self._failed = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"tracker-{name}", daemon=True)
        self._thread.start()

    def do(self, call: Call) -> None:
        """Make the call when its turn comes. Returns at once."""
        if self._failed.is_set():
            return
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._stop(f"it has not taken {_WAITING} calls yet")

    def close(self) -> None:
        """Let the tracker write what is left, within a time limit."""
        if self._failed.is_set():
            return
        try:
            self._calls.put(None, timeout=_CLOSE_TIMEOUT_S)
        except queue.Full:
            return self._stop("it is too slow")
        self._thread.join(_CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            self._stop(f"it did not end within {_CLOSE_TIMEOUT_S:g} s")
        return None

    def _work(self) -> None:
        try:
            tracker = self._open()
            while (call := self._calls.get()) is not None and not self._failed.is_set():
                call(tracker)
            tracker.close()
        except Exception as error:  # a tracker's package may raise anything, which must not end the run
            log.info("tracker %s failed", self._name, exc_info=True)
            self._stop(f"{type(error).__name__}: {error}")

    def _stop(self, reason: str) -> None:
        if not self._failed.is_set():
            self._failed.set()
            self._say(f"tracking with {self._name} has stopped, and the run goes on: {reason}")
