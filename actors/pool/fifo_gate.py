"""A first-come, first-served gate with limited room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Gate:
    """Admits requests in the order of their arrival while the total size inside stays within `room()`.

    A request that is larger than the room is admitted alone.

    Args:
        room: called again each time a request leaves.
    """

    def __init__(self, room: Callable[[], int]) -> None:
        self._room = room
        self._inside = 0
        self._turn = asyncio.Lock()  # held by the request that is next
        self._left = asyncio.Event()  # set when a request leaves

    @asynccontextmanager
    async def through(self, size: int) -> AsyncIterator[None]:
        """Wait for room of `size` and occupy it inside the `with`."""
        async with self._turn:
            while self._inside and self._inside + size > self._room():
                self._left.clear()
                await self._left.wait()
            self._inside += size
        try:
            yield
        finally:
            # No await here, so that a cancelled request leaves too.
            self._inside -= size
            self._left.set()
