"""What the pool has its workers play: a fixed number of episodes, or a stream that follows the policy's versions."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque

from actors.rollout.results import EpisodeResult, summarize
from buffer.rollout_records import CollectReport


class Job(ABC):
    """Seeds to play and what came of them. Seeds of lost workers are played again, before others.

    group: so many seeds in a row stand for one environment seed, `seed // group`.
    """

    def __init__(self, first_seed: int, *, greedy: bool, store: bool, group: int = 1) -> None:
        self.group = group
        self.greedy = greedy
        self.store = store
        self.failure: BaseException | None = None
        self.stopped = False
        self._next = first_seed
        self._again: deque[int] = deque()
        self._out: set[int] = set()
        self._unread: list[EpisodeResult] = []
        self._lost = 0
        self._since = time.monotonic()

    @abstractmethod
    def admits(self) -> bool:
        """Whether another episode may start now."""

    def take(self) -> int:
        """The next seed to play."""
        if self._again:
            seed = self._again.popleft()
        else:
            seed = self._next
            self._next += 1
        self._out.add(seed)
        return seed

    def lose(self, seed: int) -> None:
        """The worker that played `seed` is gone."""
        self._out.discard(seed)
        self._again.append(seed)
        self._lost += 1

    def drop(self, seed: int, error: BaseException) -> None:
        """`error` is no failure of one episode: the job can't go on."""
        self._out.discard(seed)
        self._again.append(seed)
        self.failure = error

    def finish(self, result: EpisodeResult) -> None:
        self._out.discard(result.seed)
        self._unread.append(result)

    @property
    def playing(self) -> int:
        return len(self._out)

    @property
    def finished(self) -> int:
        """Episodes since the last report, dropped ones included."""
        return len(self._unread)

    def report(self) -> CollectReport:
        """All since the last report."""
        results, self._unread = self._unread, []
        lost, self._lost = self._lost, 0
        seconds, self._since = time.monotonic() - self._since, time.monotonic()
        return summarize(results, seconds=seconds, lost=lost, next_seed=min([self._next, *self._again, *self._out]))


class Batch(Job):
    """A fixed number of episodes."""

    def __init__(self, episodes: int, first_seed: int, *, greedy: bool, store: bool, group: int = 1) -> None:
        super().__init__(first_seed, greedy=greedy, store=store, group=group)
        self.episodes = episodes
        self._end = first_seed + episodes

    def admits(self) -> bool:
        return bool(self._again) or self._next < self._end

    @property
    def complete(self) -> bool:
        return self.finished == self.episodes

    def resume(self) -> None:
        """Go on after a failure with what is not finished."""
        self.failure = None


class Stream(Job):
    """Episodes without end, as many as the policy's version admits.

    started <= (version - first version + max_staleness + 1) * episodes_per_version
    """

    def __init__(
        self, first_seed: int, version: int, *, episodes_per_version: int, max_staleness: int, group: int = 1
    ) -> None:
        super().__init__(first_seed, greedy=False, store=True, group=group)
        self._first_seed = first_seed
        self._first_version = version
        self._per_version = episodes_per_version
        self._max_staleness = max_staleness
        self.version = version

    def admits(self) -> bool:
        if self.stopped:
            return False
        budget = (self.version - self._first_version + self._max_staleness + 1) * self._per_version
        return bool(self._again) or self._next - self._first_seed < budget
