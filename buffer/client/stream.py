"""Samples ahead of need: blocks of them, each one request of each shard, fetched while the last one is used."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from buffer.errors import ReplayError
from buffer.sampling.sample import Sample


class SampleStream(Iterator[Sample]):
    """Samples without end, in order; close it, or use it in a `with` block. For one thread.

    What is fetched counts as sampled, used or not. An error of a fetch is raised where its samples would come.
    """

    def __init__(self, fetch: Callable[[], list[Sample]]) -> None:
        self._fetch = fetch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="replay-stream")
        self._ready: deque[Sample] = deque()
        self._next: Future[list[Sample]] | None = self._thread.submit(fetch)

    def __next__(self) -> Sample:
        if not self._ready:
            if self._next is None:
                raise ReplayError("this stream of samples was closed; open another with ReplayClient.stream")
            block = self._next
            # Asked for before this block is looked at: it travels while that one is used, and follows an error too.
            self._next = self._thread.submit(self._fetch)
            self._ready.extend(block.result())
        return self._ready.popleft()

    def close(self) -> None:
        """Fetch no more. Returns once the fetch under way has ended."""
        self._ready.clear()
        self._next = None
        self._thread.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
