"""Jobs of the pool: the episodes to play, and the results."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from actors.rollout.results import EpisodeResult, summarize
from buffer.rollout_records import CollectReport


class Job:
    """The episode seeds from `first_seed` up to `end()`. Seeds of lost workers are played again, before new seeds.

    Args:
        end: returns the first seed that must not start yet; called before each episode.
        group: number of consecutive episode seeds that share one environment seed, `seed // group`.
        keep_every: of how many groups one is kept whole in the reports; 0 keeps none.
    """

    def __init__(
        self,
        first_seed: int,
        end: Callable[[], int],
        *,
        greedy: bool = False,
        store: bool = True,
        group: int = 1,
        keep_every: int = 0,
    ) -> None:
        self.group = group
        self.keep_every = keep_every
        self.greedy = greedy
        self.store = store
        self.failure: BaseException | None = None
        self.stopped = False
        self._end = end
        self._next = first_seed
        self._retries: deque[int] = deque()
        self._in_flight: set[int] = set()
        self._unreported: list[EpisodeResult] = []
        self._lost = 0
        self._since = time.monotonic()

    @property
    def next_seed(self) -> int:
        """The first seed that was never taken."""
        return self._next

    @property
    def ended(self) -> bool:
        return self.stopped or self.failure is not None

    def admits(self) -> bool:
        """Return whether another episode may start now."""
        return not self.ended and (bool(self._retries) or self._next < self._end())

    def take(self) -> int:
        """Return the next seed to play."""
        seed = self._retries.popleft() if self._retries else self._next
        self._next = max(self._next, seed + 1)
        self._in_flight.add(seed)
        return seed

    def lose(self, seed: int) -> None:
        """Schedule `seed` again, because its worker is lost."""
        self._in_flight.discard(seed)
        self._retries.append(seed)
        self._lost += 1

    def fail(self, seed: int, error: BaseException) -> None:
        """Record `error`, which prevents the whole job from continuing; `seed` is scheduled again."""
        self._in_flight.discard(seed)
        self._retries.append(seed)
        self.failure = error

    def finish(self, result: EpisodeResult) -> None:
        self._in_flight.discard(result.seed)
        self._unreported.append(result)

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    @property
    def finished(self) -> int:
        """Return the number of episodes since the last report, dropped ones included."""
        return len(self._unreported)

    def report(self) -> CollectReport:
        """Return the report over all episodes since the last report."""
        results, self._unreported = self._unreported, []
        lost, self._lost = self._lost, 0
        seconds, self._since = time.monotonic() - self._since, time.monotonic()
        next_seed = min([self._next, *self._retries, *self._in_flight])
        return summarize(results, seconds=seconds, lost=lost, next_seed=next_seed)
