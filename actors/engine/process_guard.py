"""Ends engine processes when the worker that started them ends, for whatever reason.

vLLM runs the model in child processes, and a worker killed by SIGKILL cannot end its children. The worker therefore
writes its process id into the environment that they inherit, and each child watches that process through a pidfd. A
pidfd needs no polling, and it never refers to another process that reuses the id.
"""

from __future__ import annotations

import os
import select
import signal
import threading

OWNER_VARIABLE = "ARCHER_ENGINE_OWNER"


def own_children() -> None:
    """Make engine processes that start from now on end with this process."""
    os.environ[OWNER_VARIABLE] = str(os.getpid())


def follow_owner() -> None:
    """In an engine process: when the owner ends, kill this process and the engine core between it and the owner."""
    owner = int(os.environ.get(OWNER_VARIABLE, os.getpid()))
    if owner == os.getpid():
        return
    try:
        handle = os.pidfd_open(owner)
    except ProcessLookupError:
        _end(owner)
        return
    threading.Thread(target=_wait, args=(handle, owner), name="process-guard", daemon=True).start()


def _wait(handle: int, owner: int) -> None:
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    poller.poll()
    _end(owner)


def _end(owner: int) -> None:
    # If an engine has several processes, the parent of this one is the engine core, a child of the owner.
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
