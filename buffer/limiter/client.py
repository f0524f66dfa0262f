"""A client's side of the limiter: waiting for its turn, and counting what it took."""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.actor import ActorHandle

from buffer.config import ReplayConfig
from buffer.debounce import Delayed
from buffer.errors import ReplayError, ReplayTimeout
from buffer.sampling.row_filter import View

_MARGIN_S = 10.0
_COUNT_DELAY_S = 0.05


class LimiterClient:
    """Waits for the limiter, except where it can never block again. Thread-safe."""

    def __init__(self, config: ReplayConfig, actor: ActorHandle) -> None:
        self._config = config
        self._actor = actor
        self._who = f"process {os.getpid()} on {ray.util.get_node_ip_address()}"
        self._lock = threading.Lock()
        self._uncounted: Counter[View] = Counter()
        """Sampled turns that the limiter does not know of yet."""
        self._delayed = Delayed(self._send, _COUNT_DELAY_S)
        self._passed: set[View] = set()
        """Views of which a sample was let through; without samples_per_insert none waits after that."""

    def await_insert(self, deadline: float) -> None:
        """Wait until an insert may go on. Raises ReplayTimeout."""
        if self._config.bounds_inserts:
            self._ask(self._actor.await_insert, deadline)

    @contextmanager
    def sampling(self, view: View, deadline: float, turns: int = 0) -> Iterator[Callable[[int], None]]:
        """Wait until a sample of the view may go on; gives what to call with the turns that were sampled.

        Raises ReplayTimeout.

        Args:
            turns: how many it will be, where that is known. Someone who waits for the limiter too sees them at once,
                so that no two callers are let through by the same room; they are given back where the block raises.
        """
        charged = 0
        if view not in self._passed:
            self._ask(self._actor.await_sample, deadline, view, turns)
            charged = turns
            if self._config.limits[view].samples_per_insert is None:
                self._passed.add(view)
        sampled = 0

        def count(taken: int) -> None:
            nonlocal sampled
            sampled = taken

        try:
            yield count
        finally:
            if sampled != charged:
                self._count(view, sampled - charged)

    def _count(self, view: View, turns: int) -> None:
        """Count turns as sampled: at once where someone may wait for it, else together with those that follow."""
        if self._config.limits[view].samples_per_insert is not None:
            # Waited for, so that whoever goes on sees right counts; never raises over an error that is under way.
            ray.wait([self._actor.count_sampled.remote({view: turns})], timeout=_MARGIN_S)
            return
        with self._lock:
            self._uncounted[view] += turns
        self._delayed.ask()

    def _send(self) -> None:
        with self._lock:
            turns, self._uncounted = self._uncounted, Counter()
        ray.wait([self._actor.count_sampled.remote(dict(turns))], timeout=_MARGIN_S)

    def flush(self) -> None:
        """Tell the limiter what it does not know yet."""
        self._delayed.finish()

    def call(self, name: str, *arguments: Any) -> ray.ObjectRef:
        """The answer to be of another of the limiter's methods."""
        return getattr(self._actor, name).remote(*arguments)

    def _ask(self, method: Any, deadline: float, *arguments: Any) -> None:
        left = max(0.0, deadline - time.monotonic())
        who = self._who
        try:
            # The limiter times out by itself and says why; the margin is for an actor that is gone.
            refused = ray.get(method.remote(*arguments, left, who), timeout=left + _MARGIN_S)
        except ray.exceptions.ActorDiedError as error:
            raise ReplayError("the replay limiter is gone for good: the service was stopped") from error
        except (ray.exceptions.GetTimeoutError, ray.exceptions.RayActorError) as error:
            raise ReplayTimeout(f"{who} waits for the replay limiter, which does not answer: {error}") from error
        if refused:
            raise ReplayTimeout(refused)
