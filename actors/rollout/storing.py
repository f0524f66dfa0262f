"""Finished episodes on their way to replay."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import pyarrow as pa

from buffer.episodes.schema import Episode, episodes_to_batch


class Replay(Protocol):
    """What a worker needs of `buffer.client.ray_client.ReplayClient`."""

    def append(self, batch: pa.RecordBatch) -> int: ...


class Storer:
    """Appends episodes from the event loop without blocking it.

    While one append is under way further episodes gather and go together in the next one, so that appends grow with
    the load.
    """

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._waiting: list[tuple[Episode, asyncio.Future[None]]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="append")
        self._task: asyncio.Task[None] | None = None

    async def store(self, episode: Episode) -> None:
        """Return once replay has acknowledged `episode`. Raises what the append raises."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((episode, done))
        if self._task is None:
            self._task = asyncio.create_task(self._drain())
        await done

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                rows = episodes_to_batch([episode for episode, _ in batch])
                (outcome,) = await asyncio.gather(
                    loop.run_in_executor(self._thread, self._replay.append, rows), return_exceptions=True
                )
                for _, done in batch:
                    if done.done():
                        continue
                    if isinstance(outcome, BaseException):
                        done.set_exception(outcome)
                    else:
                        done.set_result(None)
        finally:
            self._task = None
