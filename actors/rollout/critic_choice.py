"""Selection of actions by a critic: the policy samples candidates, and a scorer picks one of them."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from actors.errors import ChooserLost
from actors.rollout.coalescer import Coalescer
from buffer.rollout_records import FreshActions

if TYPE_CHECKING:
    from ray.actor import ActorHandle


class CandidateScorer(Protocol):
    """A critic in this process."""

    def choose(self, states: Sequence[np.ndarray], candidates: Sequence[FreshActions]) -> list[int]:
        """Return the index of the best candidate of each state."""


class Chooser(ABC):
    """Asks a critic which candidate to play, for all concurrent episodes together.

    Args:
        candidates: number of actions to sample at each state.
    """

    def __init__(self, candidates: int) -> None:
        self.candidates = candidates
        self._best = Coalescer(self._ask)

    async def choose(self, state: Sequence[int], candidates: FreshActions) -> FreshActions:
        """Return the best of the `candidates`. Raises ChooserLost if the scorer died or did not answer in time."""
        return candidates.action(await self._best.submit((np.asarray(state, np.int32), candidates)))

    async def _ask(self, questions: list[tuple[np.ndarray, FreshActions]]) -> list[int]:
        return await self._answer([state for state, _ in questions], [actions for _, actions in questions])

    @abstractmethod
    async def _answer(self, states: list[np.ndarray], candidates: list[FreshActions]) -> list[int]:
        """Return the index of the best candidate of each state."""


class ActorChooser(Chooser):
    """Asks a Ray actor: `choose.remote(states, candidates)` of `scorer` returns the indices."""

    def __init__(self, scorer: ActorHandle, candidates: int, timeout_s: float) -> None:
        super().__init__(candidates)
        self._scorer = scorer
        self._timeout_s = timeout_s

    async def _answer(self, states: list[np.ndarray], candidates: list[FreshActions]) -> list[int]:
        from ray.exceptions import RayActorError  # late: an inline run needs no Ray

        try:
            return await asyncio.wait_for(self._scorer.choose.remote(states, candidates), self._timeout_s)
        except (RayActorError, TimeoutError) as error:
            raise ChooserLost(
                f"the critic that picks actions died or did not answer within {self._timeout_s:.0f} s ({error!r}); "
                "resume the run from its last checkpoint"
            ) from error


class InProcessChooser(Chooser):
    """Asks a critic in this process."""

    def __init__(self, scorer: CandidateScorer, candidates: int) -> None:
        super().__init__(candidates)
        self._scorer = scorer

    async def _answer(self, states: list[np.ndarray], candidates: list[FreshActions]) -> list[int]:
        return self._scorer.choose(states, candidates)
