"""Signals that end a command: the first one in order, the second one at once.

SIGINT (Ctrl-C), SIGTERM (schedulers such as Slurm and Kubernetes) and SIGHUP (a closed terminal) raise
KeyboardInterrupt in the main thread. After SIGTERM and SIGHUP the end is due within the grace period of a scheduler. A
run that can end with a checkpoint is asked for it first (`ends_by`).
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

GRACE_S = 25.0
"""Seconds from the signal to the end. Schedulers kill after 30 s."""
PATIENCE_S = 12.0
"""Seconds of these for what `ends_by` asks for; the rest is for the end of all processes."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP arrived."""


class _State:
    handled: tuple[signal.Signals, ...] = ()
    received: int | None = None
    sentence = ""
    request: Callable[[], bool] | None = None
    patience: threading.Timer | None = None
    overdue = False


def install() -> None:
    """Handle the signals from now on, except those that the caller of this process ignores or handles.

    Call it in the main thread.
    """
    defaults = (signal.SIG_DFL, signal.default_int_handler)
    _State.handled = tuple(number for number in _SIGNALS if signal.getsignal(number) in defaults)
    rearm()


def rearm() -> None:
    """Handle again the signals that `install` did. Call it after `ray.init`, whose own handlers abort at SIGTERM."""
    owner = os.getpid()
    for number in _State.handled:
        signal.signal(number, lambda number, _: _receive(number, owner))


def ends_with(sentence: str) -> None:
    """Set the sentence for an end that does not wait for the rest of the process, such as how to resume a run."""
    _State.sentence = sentence


@contextmanager
def ends_by(request: Callable[[], bool]) -> Iterator[None]:
    """Call `request` at SIGTERM or SIGHUP. If it returns true, the block should end in order within `PATIENCE_S`.

    Raises Terminated at the end of the block, or in it when the time is over. Ctrl-C interrupts the block at once.
    """
    _State.request = request
    try:
        yield
    finally:
        _State.request = None
        if _State.patience is not None:
            _State.patience.cancel()
    if _State.received is not None:
        raise Terminated


def exit_status() -> int:
    """Return 128 + the number of the signal that ended the command, as shells count; 130 if none was handled here."""
    return 128 + (_State.received or signal.SIGINT)


def _receive(number: int, owner: int) -> None:
    if os.getpid() != owner:  # a child that was forked
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    if _State.overdue:
        _State.overdue = False
        raise Terminated
    if _State.received is not None:
        _end_now("ended at once by a second signal")
    _State.received = number
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    _after(GRACE_S, lambda: _end_now(f"the command did not end within {GRACE_S:g} s of the signal"))
    if _State.request is None or not _State.request():
        raise Terminated
    _State.patience = _after(PATIENCE_S, _insist)


def _after(seconds: float, call: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()
    return timer


def _insist() -> None:
    """Raise Terminated in the main thread, which may wait without limit."""
    main = threading.main_thread().ident
    if _State.received is not None and main is not None:
        _State.overdue = True
        signal.pthread_kill(main, _State.received)


def _end_now(reason: str) -> None:
    """End the process without unwinding. Ray's processes of this run end with their parent."""
    text = "; ".join(part for part in (reason, _State.sentence) if part)
    os.write(2, f"archer: {text}\n".encode(errors="replace"))
    os._exit(exit_status())
