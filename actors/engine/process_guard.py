"""Engine processes end with the worker that started them, however it ends.

vLLM runs the model in child processes, and a worker killed with -9 can't end its children. So the worker puts its
process id into the environment that they inherit, and each of them watches that process through a pidfd: an event
of the kernel, no polling, and a recycled process id can't be mistaken for the worker.
"""

from __future__ import annotations

import os
import select
import signal
import threading

OWNER_VARIABLE = "ARCHER_ENGINE_OWNER"


def own_children() -> None:
    """Engine processes started from now on end with this process."""
    os.environ[OWNER_VARIABLE] = str(os.getpid())


def follow_owner() -> None:
    """Called in an engine process: end it, and what stands between it and the owner, when the owner ends."""
    owner = int(os.environ.get(OWNER_VARIABLE, os.getpid()))
    if owner == os.getpid():
        return
    try:
        handle = os.pidfd_open(owner)
    except ProcessLookupError:
        _end(owner)
        return
    threading.Thread(target=_wait, args=(handle, owner), name="lifeline", daemon=True).start()


def _wait(handle: int, owner: int) -> None:
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    poller.poll()
    _end(owner)


def _end(owner: int) -> None:
    # With several processes per engine, this one's parent is the engine core, whose parent was the owner.
    parent = os.getppid()
    if parent not in (owner, 1) and _name(parent).startswith("VLLM::"):
        os.kill(parent, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""
