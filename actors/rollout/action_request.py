"""Requests for fresh actions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actors.errors import ActorError


@dataclass(frozen=True)
class ActionRequest:
    """A request for `counts[i]` actions at each state i.

    states: int32 token ids of each state.
    counts: int32 [states].
    logprobs: whether the answer contains log-probabilities.
    """

    states: list[np.ndarray]
    counts: np.ndarray
    logprobs: bool

    @classmethod
    def of(cls, prompts: Sequence[np.ndarray], n: int | np.ndarray, logprobs: bool) -> ActionRequest:
        """Return a request for `n` actions at each prompt, or n[i] at prompt i. Raises ActorError."""
        if not prompts:
            raise ActorError("a request for actions contains no states")
        counts = np.broadcast_to(np.asarray(n, np.int32), len(prompts))
        if counts.min() < 1:
            raise ActorError(f"a request for {counts.min()} actions at a state; request at least 1")
        return cls([np.asarray(prompt, np.int32) for prompt in prompts], counts, logprobs)

    def split(self, parts: int) -> list[ActionRequest]:
        """Return at most `parts` requests of about as many tokens each, in order."""
        ends = np.cumsum([0, *map(len, self.states)])
        cuts = np.searchsorted(ends, ends[-1] * np.arange(parts + 1) / parts)
        cuts[0], cuts[-1] = 0, len(self.states)
        spans = [(a, b) for a, b in itertools.pairwise(cuts.tolist()) if a < b]
        return [ActionRequest(self.states[a:b], self.counts[a:b], self.logprobs) for a, b in spans]
