"""Rank 0 decides and asks; the other ranks follow.

Only rank 0 talks to replay and to the engines, so that a step's global batch is the same on any number of ranks.
What it gets, or that it must broadcast weights again first, reaches the others through these calls; all ranks call
them in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed as dist

from learner.errors import WaitTimeoutError

T = TypeVar("T")

# Engines that die again and again need a person, not another broadcast.
MAX_REBROADCASTS = 5


@dataclass(frozen=True)
class _Stale:
    """In place of a result: no engine holds the current weights."""

    reason: str


class Leader:
    """Runs calls on rank 0 and shares their outcome.

    Args:
        stale_error: what the rollout service raises when every engine lacks the current weights.
        rebroadcast: hands the current weights to the engines; called on every rank.
    """

    def __init__(self, stale_error: type[Exception], rebroadcast: Callable[[], object]) -> None:
        self.rank = dist.get_rank()
        self.ranks = dist.get_world_size()
        self._stale_error = stale_error
        self._rebroadcast = rebroadcast
        # Rows and outcomes are objects on the host, whatever the gradients travel by.
        self._group = dist.new_group(backend="gloo") if self.ranks > 1 else None

    def call(self, function: Callable[[], T]) -> T:
        """The result of `function`, run on rank 0, on every rank."""
        return self._share(lambda: [function()] * self.ranks)

    def scatter(self, function: Callable[[], list[T]]) -> T:
        """Of the list that `function` gives on rank 0, each rank its own element."""
        return self._share(function)

    def gather(self, value: T) -> list[T] | None:
        """Every rank's value on rank 0, in order; None elsewhere."""
        if self.ranks == 1:
            return [value]
        gathered: list[Any] | None = [None] * self.ranks if self.rank == 0 else None
        dist.gather_object(value, gathered, dst=0, group=self._group)
        return gathered

    def _share(self, function: Callable[[], list[T]]) -> T:
        reason = ""
        for _ in range(MAX_REBROADCASTS):
            outcomes: list[Any] | None = None
            if self.rank == 0:
                try:
                    outcomes = function()
                except self._stale_error as error:
                    outcomes = [_Stale(str(error))] * self.ranks
            received: list[Any] = [None]
            if self.ranks == 1:
                assert outcomes is not None
                received = [outcomes[0]]
            else:
                dist.scatter_object_list(received, outcomes, src=0, group=self._group)
            if not isinstance(received[0], _Stale):
                return received[0]
            reason = received[0].reason
            self._rebroadcast()
        raise WaitTimeoutError(
            f"the engines lost their weights {MAX_REBROADCASTS} times in a row ({reason}); look for the reason in the "
            "worker logs of the Ray session folder"
        )
