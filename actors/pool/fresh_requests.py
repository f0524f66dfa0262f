"""Requests for fresh actions: admission, and distribution over the workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from actors.config import RolloutConfig
from actors.pool.supervisor import Supervisor, Worker, WorkerGone
from actors.rollout.action_request import ActionRequest
from buffer.rollout_records import FreshActions

# Actions in flight per worker, in multiples of the sequences that its engine decodes at once. The engine then stays
# full while the last actions of a request finish. Further requests wait at the gate, where no timeout counts yet.
REQUESTED_AHEAD = 8


class Gate:
    """Admits requests in the order of their arrival while the total size inside stays within `room()`.

    A request that is larger than the room is admitted alone.

    Args:
        room: called again each time a request leaves.

    Attributes:
        waiting: number of requests that are not admitted yet.
    """

    def __init__(self, room: Callable[[], int]) -> None:
        self.waiting = 0
        self._room = room
        self._inside = 0
        self._turn = asyncio.Lock()  # held by the request that is next
        self._left = asyncio.Event()  # set when a request leaves

    @asynccontextmanager
    async def through(self, size: int) -> AsyncIterator[None]:
        """Wait for room of `size` and occupy it inside the `with`."""
        self.waiting += 1
        try:
            async with self._turn:
                while self._inside and self._inside + size > self._room():
                    self._left.clear()
                    await self._left.wait()
                self._inside += size
        finally:
            self.waiting -= 1
        try:
            yield
        finally:
            # No await here, so that a cancelled request leaves too.
            self._inside -= size
            self._left.set()


class FreshRequests:
    """Answers requests for actions by the ready workers of a supervisor, in about the order of arrival."""

    def __init__(self, supervisor: Supervisor, config: RolloutConfig) -> None:
        self._sup = supervisor
        self._startup_timeout_s = config.engine.startup_timeout_s
        at_once = REQUESTED_AHEAD * config.engine.max_num_seqs
        self.gate = Gate(lambda: at_once * max(1, len(supervisor.ready())))

    async def answer(self, request: ActionRequest) -> FreshActions:
        """Return the requested actions. Raises StaleWorkersError."""
        async with self.gate.through(int(request.counts.sum())):
            return await self._spread(request)

    async def _spread(self, request: ActionRequest) -> FreshActions:
        await self._sup.wait_for(
            lambda: self._sup.ready() or self._sup.stranded(),
            self._startup_timeout_s,
            "no worker started to generate actions",
        )
        ready = self._sup.ready()
        if not ready:
            raise self._sup.stale_error()
        shares = zip(ready, request.split(len(ready)), strict=False)
        return FreshActions.join(await asyncio.gather(*(self._act(worker, share) for worker, share in shares)))

    async def _act(self, worker: Worker, share: ActionRequest) -> FreshActions:
        """Return one worker's share; if the worker is lost, the others take the share over."""
        worker.acting += 1
        try:
            return await self._sup.call(worker, "act", share)
        except WorkerGone:
            pass
        finally:
            worker.acting -= 1
            await self._sup.notify()
        return await self._spread(share)
