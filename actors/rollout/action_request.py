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

    tokens: int32 [total], the tokens of all states.
    offsets: int64 [states + 1]; state i is `tokens[offsets[i] : offsets[i + 1]]`.
    counts: int32 [states].
    logprobs: whether the answer contains log-probabilities.
    """

    tokens: np.ndarray
    offsets: np.ndarray
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
        offsets = np.cumsum([0, *(len(prompt) for prompt in prompts)], dtype=np.int64)
        return cls(np.concatenate([np.asarray(p, np.int32) for p in prompts]), offsets, counts, logprobs)

    def states(self) -> list[list[int]]:
        """Return the tokens of each state."""
        flat = self.tokens.tolist()
        return [flat[a:b] for a, b in itertools.pairwise(self.offsets.tolist())]

    def split(self, parts: int) -> list[ActionRequest]:
        """Return at most `parts` requests of about as many tokens each, in order."""
        cuts = np.searchsorted(self.offsets, self.offsets[-1] * np.arange(parts + 1) / parts)
        cuts[0], cuts[-1] = 0, len(self.counts)
        return [self._part(a, b) for a, b in itertools.pairwise(cuts.tolist()) if a < b]

    def _part(self, a: int, b: int) -> ActionRequest:
        start, end = self.offsets[[a, b]]
        return ActionRequest(self.tokens[start:end], self.offsets[a : b + 1] - start, self.counts[a:b], self.logprobs)
