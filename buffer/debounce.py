"""Work that may come a moment later, and then is done once for all who asked for it meanwhile."""

import threading
from collections.abc import Callable


class Delayed:
    """Calls `function` in a thread of its own, `delay_s` seconds after `ask`; more asking until then adds nothing."""

    def __init__(self, function: Callable[[], object], delay_s: float) -> None:
        self._function = function
        self._delay_s = delay_s
        self._asking = threading.Lock()
        self._working = threading.Lock()
        self._timer: threading.Timer | None = None

    def ask(self) -> None:
        """See the class."""
        with self._asking:
            if self._timer is None:
                self._timer = threading.Timer(self._delay_s, self._work)
                self._timer.daemon = True
                self._timer.start()

    def finish(self) -> None:
        """Return once everything that was asked for is done, here and now where it is not under way."""
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
