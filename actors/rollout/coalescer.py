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
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._task: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Answer:
        """Return the answer for `item`. Raises what the call of its batch raises."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._task is None:
            self._task = asyncio.create_task(self._drain())
        return await answer

    async def _drain(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                # gather turns the batch's exception into a value, which every item of the batch receives.
                (outcome,) = await asyncio.gather(self._call([item for item, _ in batch]), return_exceptions=True)
                for index, (_, answer) in enumerate(batch):
                    if answer.done():
                        continue
                    if isinstance(outcome, BaseException):
                        answer.set_exception(outcome)
                    else:
                        answer.set_result(outcome[index])
        finally:
            self._task = None
