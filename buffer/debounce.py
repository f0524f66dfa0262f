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
                self._timer = threading.Timer(self._delay_s, self.finish)
                self._timer.daemon = True
                self._timer.start()

    def finish(self) -> None:
        """Return when every requested call is done; a call that has not begun is made at once."""
        with self._working:
            with self._asking:
                timer, self._timer = self._timer, None
            if timer is not None:
                timer.cancel()
                self._function()
