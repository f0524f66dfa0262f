"""A proof that the engines answer beside their requests, while the learner goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class PendingProof:
    """The proof of a broadcast that has begun.

    Args:
        compare: returns the largest gap, or the reason if no engine is left to answer; it waits for the engines, so it
            runs in a thread. None on ranks that do not talk to the engines.

    Attributes:
        version: the policy version that is proved.
        expected: the learner's log-probabilities, float32 [positions].
        seconds: time in which the engines answered; known after `outcome`.
    """

    def __init__(self, version: int, expected: np.ndarray, compare: Callable[[], float | str] | None) -> None:
        self.version = version
        self.expected = expected
        self.seconds = 0.0
        self._answer: Future[tuple[float | str, float]] | None = None
        if compare is not None:
            thread = ThreadPoolExecutor(1, thread_name_prefix="proof")
            self._answer = thread.submit(_timed, compare)
            thread.shutdown(wait=False)

    def outcome(self) -> float | str:
        """Wait for the engines and return what `compare` does, 0 on ranks without it. Raises what `compare` raises."""
        if self._answer is None:
            return 0.0
        found, self.seconds = self._answer.result()  # the probe has its own timeout, which names who is missing
        return found


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    started = time.monotonic()
    return call(), time.monotonic() - started
