"""A client's side of the limiter: it waits for admission and reports what it sampled."""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import ray
from ray.actor import ActorHandle

from buffer.client.base import NoLimiter
from buffer.config import ReplayConfig
from buffer.debounce import Delayed
from buffer.errors import ReplayError, ReplayTimeout
from buffer.sampling.request import View
from buffer.sampling.sample import Sample

_MARGIN_S = 10.0  # Seconds beyond the deadline that a call waits for the limiter's own timeout message
_COUNT_DELAY_S = 0.05


class LimiterClient(NoLimiter):
    """Waits for the limiter, unless it can never block the call. Thread-safe."""

    def __init__(self, config: ReplayConfig, actor: ActorHandle) -> None:
        self._config = config
        self._actor = actor
        self._who = f"process {os.getpid()} on {ray.util.get_node_ip_address()}"
        self._lock = threading.Lock()
        self._uncounted: Counter[View] = Counter()  # Sampled turns that are not yet reported to the limiter
        self._delayed = Delayed(self._send, _COUNT_DELAY_S)
        self._passed: set[View] = set()
        """Views without samples_per_insert of which a sample was admitted: no later sample waits."""

    def await_insert(self, deadline: float) -> None:
        """See `NoLimiter`."""
        if self._config.bounds_inserts:
            self._ask(self._actor.await_insert, deadline)

    def sample(self, draw: Callable[[], Sample], view: View, deadline: float, turns: int = 0) -> Sample:
        """See `NoLimiter`. The limiter counts `turns`, if known, at admission, so that two callers are not admitted on
        the same budget; if `draw` raises, they are subtracted again.
        """
        charged = 0
        if view not in self._passed:
            self._ask(self._actor.await_sample, deadline, view, turns)
            charged = turns
            if self._config.limits[view].samples_per_insert is None:
                self._passed.add(view)
        sampled = 0
        try:
            sample = draw()
            sampled = sample.turns_drawn
            return sample
        finally:
            if sampled != charged:
                self._count(view, sampled - charged)

    def flush(self) -> None:
        """Report outstanding counts to the limiter."""
        self._delayed.finish()

    def _count(self, view: View, turns: int) -> None:
        """Report sampled turns: at once if the limiter may block on them, else together with later ones."""
        if self._config.limits[view].samples_per_insert is not None:
            # Wait, so that the next admission sees correct counts, but do not raise over an error under way.
            ray.wait([self._actor.count_sampled.remote({view: turns})], timeout=_MARGIN_S)
            return
        with self._lock:
            self._uncounted[view] += turns
        self._delayed.ask()

    def _send(self) -> None:
        with self._lock:
            turns, self._uncounted = self._uncounted, Counter()
        ray.wait([self._actor.count_sampled.remote(dict(turns))], timeout=_MARGIN_S)

    def _ask(self, method: Any, deadline: float, *arguments: Any) -> None:
        left = max(0.0, deadline - time.monotonic())
        try:
            # The limiter times out by itself and gives the reason; the margin is for an actor that is gone.
            refused = ray.get(method.remote(*arguments, left, self._who), timeout=left + _MARGIN_S)
        except ray.exceptions.ActorDiedError as error:
            raise ReplayError("the replay limiter is gone for good: the service was stopped") from error
        except (ray.exceptions.GetTimeoutError, ray.exceptions.RayActorError) as error:
            raise ReplayTimeout(f"{self._who} waits for the replay limiter, which does not answer: {error}") from error
        if refused:
            raise ReplayTimeout(refused)
