"""When actions that are sampled together end: at a stop token, at a stop text, or at their limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from actors.config import SamplingConfig


class Endings:
    """The limit of each action, that of its thought and from the thought's end that of its answer, and what ends it.

    Args:
        rooms: int64 [actions], the tokens for which the context window has room.
        stops: the tokens that end an action.
        thought_end: the token that ends a thought; None if the model has no thoughts.
        ends: returns whether the tokens of an action end it by their text; None if no text does.

    Attributes:
        longest: the most tokens of any action.
    """

    def __init__(
        self,
        rooms: np.ndarray,
        sampling: SamplingConfig,
        stops: np.ndarray,
        thought_end: int | None,
        ends: Callable[[Sequence[int]], bool] | None,
    ) -> None:
        budget = None if thought_end is None else sampling.thought_tokens
        self._rooms = rooms
        self._answer = sampling.max_tokens
        self._stops = stops
        self._thought_end = thought_end
        self._ends = ends
        self._limits = np.minimum(budget or sampling.max_tokens, rooms)
        self._thinking = np.full(len(rooms), budget is not None)
        self.longest = int(np.minimum(sampling.max_tokens + (budget or 0), rooms).max())

    def going_on(self, actions: np.ndarray, written: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return which actions go on after their latest token, bool [some].

        Args:
            actions: int64 [some], indices of actions.
            written: int64 [actions, longest], the tokens of all actions.
            lengths: int64 [actions], how many of them each action has.
        """
        length = lengths[actions]
        last = written[actions, length - 1]
        ended = self._thinking[actions] & (last == self._thought_end)
        answers = actions[ended]
        self._thinking[answers] = False
        self._limits[answers] = np.minimum(length[ended] + self._answer, self._rooms[answers])
        going = ~np.isin(last, self._stops) & (length < self._limits[actions])
        if self._ends is not None:
            pairs = zip(actions.tolist(), length.tolist(), strict=True)
            going &= ~np.array([self._ends(written[action, :n].tolist()) for action, n in pairs], bool)
        return going
