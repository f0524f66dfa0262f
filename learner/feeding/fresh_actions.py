"""Fresh actions for the next steps: requested together, with equal states of all these steps in one request.

The engines encode a state once for all its actions, share prefixes between states, and answer in the order of the
steps while the learner works on earlier ones. Where single draws are used as samples, no action is used by two samples.
Where the actions of a state stand for the policy's distribution there, all samples of the state use the same ones, and
equal actions are merged.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

import numpy as np

from buffer.rollout_records import FreshActions
from learner.errors import LearnerError
from learner.passes.rows import Row
from learner.protocols import RolloutService

# Episode and turn, which identify a state.
State = tuple[str, int]
# The request that returns the actions of each state, and the number of the next unused action in its answer.
Stock = dict[State, tuple[Future[FreshActions], int]]


class SharedActions:
    """The actions of states that all supplies of one policy version share, merged when they are first read."""

    def __init__(self) -> None:
        self.stock: Stock = {}
        self.merged: dict[State, FreshActions] = {}

    def forget_failed(self) -> None:
        """Forget the states whose request was cancelled or failed, so that the next supply asks for them again."""
        for state, (answer, _) in list(self.stock.items()):
            if answer.cancelled() or (answer.done() and answer.exception() is not None):
                del self.stock[state]


class FreshSupply:
    """Requests `n` fresh actions for each sample of several steps, and attaches them to the rows.

    The request of the first step that needs a state asks for the actions that all the steps need. The constructor
    raises the errors of `rollouts.request`.

    Args:
        steps: the rows of each step, in the order of use.
        logprobs: whether the steps read the behaviour log-probabilities of the actions.
        shared: if given, all samples of a state use the same `n` actions, each kept once with its share of the draws.
            States that `shared` has already are not requested.
    """

    def __init__(
        self,
        rollouts: RolloutService,
        steps: Sequence[Sequence[Row]],
        n: int,
        *,
        logprobs: bool,
        shared: SharedActions | None = None,
    ) -> None:
        self._n = n
        self._shared = shared
        self._stock: Stock = {}
        self._asked: dict[Future[FreshActions], int] = {}
        if shared is not None:
            shared.forget_failed()
            self._stock = shared.stock
        needed = Counter(state for rows in steps for row in rows for state in _states_of(row))
        for rows in steps:
            new = {
                state: row.episode.state(state[1])
                for row in rows
                for state in _states_of(row)
                if state not in self._stock
            }
            if not new:
                continue
            counts = np.array([needed[state] * n if shared is None else n for state in new], dtype=np.int32)
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
            take = self._take if self._shared is None else self._share
            row.fresh = FreshActions.join([take(state, timeout_s) for state in _states_of(row)])

    def report_drawn(self, report: Callable[[int], None]) -> None:
        """Call `report` with the number of actions of each request when it is answered.

        A request that is cancelled or fails is not reported. The call may come from the thread that answers.
        """

        def answered(answer: Future[FreshActions], asked: int) -> None:
            if not answer.cancelled() and answer.exception() is None:
                report(asked)

        for answer, asked in self._asked.items():
            answer.add_done_callback(partial(answered, asked=asked))

    def cancel(self) -> None:
        """Cancel the requests that are not answered yet."""
        for answer in self._asked:
            answer.cancel()

    def _share(self, state: State, timeout_s: float) -> FreshActions:
        """Return the distinct actions of a state, the same ones at each call."""
        assert self._shared is not None
        merged = self._shared.merged
        if state not in merged:
            merged[state] = distinct_actions(self._take(state, timeout_s))
        return merged[state]

    def _take(self, state: State, timeout_s: float) -> FreshActions:
        """Return the next `n` actions of a state."""
        request, first = self._stock[state]
        answer = request.result(timeout_s)
        if request in self._asked and len(answer.offsets) != (asked := self._asked[request]) + 1:
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


def distinct_actions(actions: FreshActions) -> FreshActions:
    """Return the distinct actions of one state in the order of their first draws, with their shares of the draws."""
    drawn = int(actions.counts[0])
    texts = [actions.tokens[start:end].tobytes() for start, end in itertools.pairwise(actions.offsets)]
    times = Counter(texts)
    first = {text: number for number, text in reversed(list(enumerate(texts)))}
    kept = FreshActions.join([actions.action(first[text]) for text in times])
    kept.counts = np.array([len(times)], dtype=np.int32)
    kept.shares = np.array(list(times.values()), dtype=np.float32) / drawn
    return kept


def _states_of(row: Row) -> list[State]:
    """Return the states of a row at which it needs fresh actions."""
    return [(row.episode.episode_id, int(turn)) for turn in row.states]
