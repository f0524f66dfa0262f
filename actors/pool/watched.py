"""Tasks of the pool that nobody awaits. Their failure always reaches someone, who wakes those that wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

# The event loop holds its tasks by weak references only.
_running: set[asyncio.Task[None]] = set()


def start(coroutine: Coroutine[Any, Any, None], failed: Callable[[BaseException], None]) -> asyncio.Task[None]:
    """Start a task, and call `failed` with its error if it raises one. A task that is cancelled has not failed.

    The pool starts no task in another way: a task that dies unseen leaves its waiters waiting for ever.
    """
    task = asyncio.create_task(coroutine)
    _running.add(task)

    def ended(task: asyncio.Task[None]) -> None:
        _running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            failed(error)

    task.add_done_callback(ended)
    return task
