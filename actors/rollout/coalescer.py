"""Batching of concurrent calls: items that arrive while one call is in flight share the next call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Coalescer(Generic[Item, Answer]):
    """Passes items to `call` in batches, one call at a time. The batches therefore grow with the load.

    Args:
        call: receives the items of a batch and returns one answer per item, in the same order.
    """

    def __init__(self, call: Callable[[list[Item]], Awaitable[Sequence[Answer]]]) -> None:
        self._call = call
        self._items: list[Item] = []
        self._turn = asyncio.Lock()

    async def submit(self, item: Item) -> Answer:
        """Return the answer for `item`. Raises what the call of its batch raises."""
        if not self._items:
            self._batch = asyncio.create_task(self._next())
        batch, index = self._batch, len(self._items)
        self._items.append(item)
        # If one of the batch's callers is cancelled, the others still receive their answers.
        return (await asyncio.shield(batch))[index]

    async def _next(self) -> Sequence[Answer]:
        async with self._turn:
            items, self._items = self._items, []
            return await self._call(items)
