"""The most tokens of actions that are sampled together, with a budget of their own for thoughts."""

from __future__ import annotations

import numpy as np

from actors.config import SamplingConfig


class Limits:
    """The limit of each action: that of its thought, and from the thought's end that of its answer.

    Args:
        rooms: int64 [actions], the tokens for which the context window has room.
        thought_end: the token that ends a thought; None if the model has no thoughts.

    Attributes:
        now: int64 [actions], the present limits.
        longest: the most tokens of any action.
    """

    def __init__(self, rooms: np.ndarray, sampling: SamplingConfig, thought_end: int | None) -> None:
        self._rooms = rooms
        self._answer = sampling.max_tokens
        self._end = None if sampling.thought_tokens is None else thought_end
        self.now = np.minimum(sampling.max_tokens if self._end is None else sampling.thought_tokens or 0, rooms)
        self.longest = int(np.minimum(sampling.max_tokens if self._end is None else sampling.longest, rooms).max())
        self._thinking = np.full(len(rooms), self._end is not None)

    def note(self, actions: np.ndarray, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """Take the next token of `actions`, int64 [some] indices, and their lengths with it: a thought may end."""
        if self._end is None:
            return
        ended = self._thinking[actions] & (tokens == self._end)
        answers = actions[ended]
        self._thinking[answers] = False
        self.now[answers] = np.minimum(lengths[ended] + self._answer, self._rooms[answers])
