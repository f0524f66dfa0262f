"""Calls that run on rank 0 and return their result on every rank.

Only rank 0 talks to replay and to the engines, so that the global batch of a step does not depend on the number of
ranks. All ranks make these calls in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from learner.errors import WaitTimeoutError

T = TypeVar("T")

MAX_REBROADCASTS = 5
"""Attempts of a call whose engines lose their weights each time. More attempts would hide a fault of the engines."""


class Leader:
    """Runs calls on rank 0 and shares their results. Sends the weights again if the engines have lost them.

    Args:
        stale_error: the rollouts' error if no engine holds the current weights.
        rebroadcast: sends the current weights to the engines; called on every rank.
    """

    def __init__(self, stale_error: type[Exception], rebroadcast: Callable[[], object]) -> None:
        self.rank = dist.get_rank()
        self.ranks = dist.get_world_size()
        self._stale_error = stale_error
        self._rebroadcast = rebroadcast
        # Results are Python objects in host memory, which NCCL cannot transfer.
        self._group = dist.new_group(backend="gloo") if self.ranks > 1 else None

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` on rank 0 and return its result on every rank."""
        return self.scatter(lambda: [function()] * self.ranks)

    def gather(self, value: T) -> list[T] | None:
        """Return the values of all ranks, in order, on rank 0; None on other ranks."""
        if self.ranks == 1:
            return [value]
        gathered: list[Any] | None = [None] * self.ranks if self.rank == 0 else None
        dist.gather_object(value, gathered, dst=0, group=self._group)
        return gathered

    def scatter(self, function: Callable[[], list[T]]) -> T:
        """Run `function` on rank 0 and return one element of its list on each rank."""
        reason: str | None = None
        for _ in range(MAX_REBROADCASTS):
            # The result of each rank, or the reason if no engine holds the current weights.
            outcomes: list[tuple[Any, str | None]] | None = None
            if self.rank == 0:
                try:
                    outcomes = [(result, None) for result in function()]
                except self._stale_error as error:
                    outcomes = [(None, str(error))] * self.ranks
            received: list[Any] = [None]
            if self.ranks == 1:
                assert outcomes is not None
                received = [outcomes[0]]
            else:
                dist.scatter_object_list(received, outcomes, src=0, group=self._group)
            result, reason = received[0]
            if reason is None:
                return result
            self._rebroadcast()
        raise WaitTimeoutError(
            f"the engines lost their weights {MAX_REBROADCASTS} times in a row ({reason}); see the workers' logs in "
            "the Ray session folder"
        )
