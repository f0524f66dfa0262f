"""Actions that a critic picks: several candidates of the policy go to it, and one comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from actors.engine.engine import Completion
from actors.errors import ChooserLost


class Chooser:
    """Asks a scoring actor which of some candidates to play, from the event loop of one worker.

    The actor answers `choose.remote(states, candidates)` with the index of the best candidate of each state. While it
    is at work, what other episodes ask gathers and goes together in the next call, so that its batches grow with the
    load.

    Args:
        candidates: actions to sample at each state.
    """

    def __init__(self, scorer: ActorHandle, candidates: int, timeout_s: float) -> None:
        self.candidates = candidates
        self._scorer = scorer
        self._timeout_s = timeout_s
        self._waiting: list[tuple[np.ndarray, list[np.ndarray], asyncio.Future[int]]] = []
        self._task: asyncio.Task[None] | None = None

    async def choose(self, state: Sequence[int], candidates: Sequence[Completion]) -> Completion:
        """The candidate to play. Raises ChooserLost where the scorer is gone or silent."""
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        tokens = [np.asarray(candidate.token_ids, np.int32) for candidate in candidates]
        self._waiting.append((np.asarray(state, np.int32), tokens, done))
        if self._task is None:
            self._task = asyncio.create_task(self._drain())
        return candidates[await done]

    async def _drain(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                outcome = (await asyncio.gather(self._ask(batch), return_exceptions=True))[0]
                for index, (_, _, done) in enumerate(batch):
                    if done.done():
                        continue
                    if isinstance(outcome, BaseException):
                        done.set_exception(outcome)
                    else:
                        done.set_result(outcome[index])
        finally:
            self._task = None

    async def _ask(self, batch: list[tuple[np.ndarray, list[np.ndarray], asyncio.Future[int]]]) -> list[int]:
        answer = self._scorer.choose.remote([state for state, _, _ in batch], [tokens for _, tokens, _ in batch])
        try:
            return await asyncio.wait_for(answer, self._timeout_s)
        except (RayActorError, TimeoutError) as error:
            raise ChooserLost(
                f"the critic that picks actions did not answer within {self._timeout_s:.0f} s or is gone ({error!r}); "
                "resume the run from its last checkpoint"
            ) from error
