"""Fresh actions for the next steps: requested together, with equal states of all these steps in one request.

The engines encode a state once for all its actions, share prefixes between states, and answer in the order of the
steps while the learner works on earlier ones. No action is used by two samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np

from buffer.rollout_records import FreshActions
from learner.errors import LearnerError
from learner.passes.rows import Row
from learner.protocols import RolloutService

# Episode and turn, which identify a state.
State = tuple[str, int]


class FreshSupply:
    """Requests `n` fresh actions for each sample of several steps, and attaches them to the rows.

    The request of the first step that needs a state asks for the actions that all the steps need. The constructor
    raises the errors of `rollouts.request`.

    Args:
        steps: the rows of each step, in the order of use.
        logprobs: whether the steps read the behaviour log-probabilities of the actions.
    """

    def __init__(self, rollouts: RolloutService, steps: Sequence[Sequence[Row]], n: int, *, logprobs: bool) -> None:
        self._n = n
        # The request that returns the actions of each state, and the number of the next unused action in its answer.
        self._stock: dict[State, tuple[Future[FreshActions], int]] = {}
        self._asked: dict[Future[FreshActions], int] = {}
        needed = Counter(state for rows in steps for row in rows for state in _states_of(row))
        for rows in steps:
            new = {
                state: row.episode.tokens[: row.episode.state_end(state[1])]
                for row in rows
                for state in _states_of(row)
                if state not in self._stock
            }
            if not new:
                continue
            counts = np.array([needed[state] * n for state in new], dtype=np.int32)
            answer = rollouts.request(list(new.values()), counts, logprobs=logprobs)
            self._asked[answer] = int(counts.sum())
            for state, first in zip(new, np.cumsum(counts) - counts, strict=True):
                self._stock[state] = (answer, int(first))

    def attach(self, rows: Sequence[Row], timeout_s: float) -> None:
        """Wait for the actions of one step and attach them to its rows.

        Raises:
            TimeoutError: after `timeout_s`.
            LearnerError: if the engines returned another number of actions than requested.
        """
        for row in rows:
            row.fresh = FreshActions.join([self._take(state, timeout_s) for state in _states_of(row)])

    def cancel(self) -> None:
        """Cancel the requests that are not answered yet."""
        for answer in self._asked:
            answer.cancel()

    def _take(self, state: State, timeout_s: float) -> FreshActions:
        """Return the next `n` actions of a state."""
        request, first = self._stock[state]
        answer, asked = request.result(timeout_s), self._asked[request]
        if len(answer.offsets) != asked + 1:
            raise LearnerError(f"asked the engines for {asked} fresh actions and got {len(answer.offsets) - 1}")
        offsets = answer.offsets[first : first + self._n + 1]
        self._stock[state] = (request, first + self._n)
        span = slice(offsets[0], offsets[-1])
        return FreshActions(
            tokens=answer.tokens[span],
            offsets=offsets - offsets[0],
            logprobs=answer.logprobs[span],  # stays empty if the request asked for none
            versions=answer.versions[span],
            counts=np.array([self._n], dtype=np.int32),
        )


def _states_of(row: Row) -> list[State]:
    """Return the state of each sample of a row."""
    return [(row.episode.episode_id, int(turn)) for turn in row.turns]
