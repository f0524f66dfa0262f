"""Deferred work: many requests within a short delay are served by one call."""

import threading
from collections.abc import Callable


class Delayed:
    """Calls `function` in its own thread `delay_s` seconds after `ask`; repeated `ask` until then adds nothing."""

    def __init__(self, function: Callable[[], object], delay_s: float) -> None:
        self._function = function
        self._delay_s = delay_s
        self._asking = threading.Lock()
        self._working = threading.Lock()
        self._timer: threading.Timer | None = None

    def ask(self) -> None:
        """Request a call."""
        with self._asking:
            if self._timer is None:
                self._timer = threading.Timer(self._delay_s, self._work)
                self._timer.daemon = True
                self._timer.start()

    def finish(self) -> None:
        """Return when every requested call is done; a call that has not begun is made at once."""
        with self._asking:
            timer = self._timer
        if timer is None:
            with self._working:
                return
        timer.cancel()
        self._work()

    def _work(self) -> None:
        with self._working:
            with self._asking:
                self._timer = None
            self._function()
