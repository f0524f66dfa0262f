"""A gate that lets requests through in the order in which they came, so many at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Gate:
    """Lets a request through once those before it are, and as long as what is inside stays within `room()`.

    A request that is larger than the room passes alone.

    Args:
        room: asked again whenever a request leaves.
    """

    def __init__(self, room: Callable[[], int]) -> None:
        self._room = room
        self._inside = 0
        self._turn = asyncio.Lock()  # first come, first served
        self._left = asyncio.Event()  # since the first in turn last looked

    @asynccontextmanager
    async def through(self, size: int) -> AsyncIterator[None]:
        """Wait for room for `size`, and hold it inside the `with`."""
        async with self._turn:
            while self._inside and self._inside + size > self._room():
                self._left.clear()
                await self._left.wait()
            self._inside += size
        try:
            yield
        finally:
            # Nothing is awaited here: whoever is cancelled leaves all the same.
            self._inside -= size
            self._left.set()
