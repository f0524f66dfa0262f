"""A bound on the processor time of others' code that runs in this thread, such as a chat template.

A thread watches the calls under way and raises an error in a thread that exceeds its bound. Signals could not: Python
handles them in the main thread only, and a worker renders in another.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_CHECK_S = 0.5


class OutOfTimeError(Exception):
    """A call used more processor time than its limit."""


@dataclass(eq=False)
class _Call:
    """A call under way: its thread, the clock of that thread, and the reading at which it is ended."""

    thread: int
    clock: int
    until: float
    ended: bool = False


class _Watch:
    """The calls under way in this process, and the thread that watches them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.calls: set[_Call] = set()
        self.arrived = threading.Event()
        self.process = os.getpid()
        threading.Thread(target=self._run, name="time-limit", daemon=True).start()

    def _run(self) -> None:
        while True:
            self.arrived.wait()
            time.sleep(_CHECK_S)
            with self.lock:
                for call in self.calls:
                    if not call.ended and time.clock_gettime(call.clock) > call.until:
                        call.ended = True
                        _raise_in(call.thread, OutOfTimeError)
                if not self.calls:
                    self.arrived.clear()


_watch: _Watch | None = None
"""One thread for all calls of a process; None before the first."""


@contextmanager
def processor_limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTimeError in the block when this thread has spent `seconds` of processor time in it.

    The error arrives between two operations of Python: one operation in native code is not interrupted.
    """
    global _watch
    if _watch is None or _watch.process != os.getpid():  # a forked child has no threads
        _watch = _Watch()
    watch, thread = _watch, threading.get_ident()
    clock = time.pthread_getcpuclockid(thread)
    call = _Call(thread, clock, time.clock_gettime(clock) + seconds)
    with watch.lock:
        watch.calls.add(call)
        watch.arrived.set()
    try:
        yield
    finally:
        with watch.lock:
            watch.calls.discard(call)
            if call.ended:
                _raise_in(thread, None)  # the block was over before the error arrived


def _raise_in(thread: int, error: type[Exception] | None) -> None:
    """Raise `error` in a thread at its next operation; None takes back an error that has not arrived yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error and ctypes.py_object(error))
