"""Selection of actions by a critic: the policy samples candidates, and a scorer picks one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from actors.errors import ChooserLost
from actors.rollout.coalescer import Coalescer
from buffer.rollout_records import FreshActions


class Chooser:
    """Asks a scoring actor which candidate to play, for all concurrent episodes of one worker.

    Args:
        scorer: its `choose.remote(states, candidates)` returns the index of the best candidate of each state.
        candidates: number of actions to sample at each state.
    """

    def __init__(self, scorer: ActorHandle, candidates: int, timeout_s: float) -> None:
        self.candidates = candidates
        self._scorer = scorer
        self._timeout_s = timeout_s
        self._best = Coalescer(self._ask)

    async def choose(self, state: Sequence[int], candidates: FreshActions) -> FreshActions:
        """Return the best of the `candidates`. Raises ChooserLost if the scorer died or did not answer in time."""
        return candidates.action(await self._best.submit((np.asarray(state, np.int32), candidates)))

    async def _ask(self, questions: list[tuple[np.ndarray, FreshActions]]) -> list[int]:
        answer = self._scorer.choose.remote([state for state, _ in questions], [actions for _, actions in questions])
        try:
            return await asyncio.wait_for(answer, self._timeout_s)
        except (RayActorError, TimeoutError) as error:
            raise ChooserLost(
                f"the critic that picks actions died or did not answer within {self._timeout_s:.0f} s ({error!r}); "
                "resume the run from its last checkpoint"
            ) from error
