"""Feeds the steps of draws: samples from replay and fresh actions from the engines, both requested in advance.

The policy is constant until the broadcast at the end of a cycle, so the fresh actions of all steps of a phase are
requested together, and the engines write them while the learner works on the first steps. The requests of the next
phase follow. `prefetch_steps` bounds the memory: for each of the two phases it is the number of steps whose episodes
and fresh actions are held at once.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from buffer.errors import EmptyViewError
from buffer.sampling.request import SampleRequest
from buffer.sampling.sample import Sample
from learner.algorithms.phases import Draws
from learner.config import LearnerConfig
from learner.errors import WaitTimeoutError
from learner.feeding.fresh_actions import FreshSupply, SharedActions
from learner.passes.rows import Batch, Row, rows_from_samples, split, whole_episodes
from learner.protocols import RolloutService
from learner.ranks import Leader

if TYPE_CHECKING:
    from buffer.client.local_client import LocalClient
    from buffer.client.ray_client import ReplayClient


@dataclass
class _Pending:
    """The rows of a step and the supply of their fresh actions; None if these are not requested yet.

    `recent` is the share of the step's samples that were drawn from recent episodes.
    """

    rows: list[Row]
    recent: float
    fresh: FreshSupply | None = None


@dataclass
class _Ahead:
    """The pending steps of a phase under one policy version, and the number of steps drawn so far."""

    draws: Draws
    version: int
    steps: deque[_Pending] = field(default_factory=deque)
    drawn: int = 0

    def cancel(self) -> None:
        """Cancel the requests for fresh actions of all pending steps."""
        for item in self.steps:
            if item.fresh is not None:
                item.fresh.cancel()
                item.fresh = None


class Feeder:
    """Returns the batches of draws, to each rank its own share."""

    def __init__(
        self, replay: ReplayClient | LocalClient, rollouts: RolloutService, leader: Leader, config: LearnerConfig
    ) -> None:
        self._replay = replay
        self._rollouts = rollouts
        self._leader = leader
        self._config = config
        self._ahead: _Ahead | None = None
        # The shared actions of the current policy version, by their number at each state.
        self._shared: dict[int, SharedActions] = {}
        self._shared_version = -1
        # Numbers of actions of the answered requests; the threads that answer append to it.
        self._drawn: deque[int] = deque()

    def batches(self, draws: Draws, version: int, then: Draws | None = None) -> Iterator[Batch]:
        """Yield all batches of `draws`, `draws.epochs` times.

        Args:
            version: the current policy version, from which `draws.max_staleness` counts back.
            then: the next draws under the same version. Their fresh actions are requested after those of `draws`,
                unless they draw recent episodes only: these are the recent ones when the phase begins.
        """
        if then is not None and then.max_staleness is not None:
            then = None
        kept: list[Batch] = []
        ahead = self._take(draws, version)

        def next_batch() -> list[Batch]:
            try:
                self._fill(ahead)
                if then is not None and ahead.drawn == draws.steps:
                    self._ahead = self._ahead or _Ahead(then, version)
                    self._fill(self._ahead)
                batch = self._complete(ahead.steps[0])
            except self._rollouts.stale_error:
                # The engines get new weights before the next attempt, which requests the actions again.
                ahead.cancel()
                if self._ahead is not None:
                    self._ahead.cancel()
                raise
            ahead.steps.popleft()
            return batch

        try:
            for _ in range(draws.steps):
                batch = self._leader.scatter(next_batch)
                if draws.epochs > 1:
                    kept.append(batch)
                yield batch
        finally:
            # A phase may end before its last step.
            ahead.cancel()
        for _ in range(draws.epochs - 1):
            yield from kept

    def with_fresh(self, rows: list[Row], n: int, version: int) -> list[Row]:
        """Return whole episodes with `n` fresh actions at each state, which the draws of this version share.

        An episode whose last turn has no successor state with room for an action is left out. With `n` 0, return the
        rows as they are. Called on rank 0.
        """
        if not n or not rows:
            return rows
        whole = [row for row in whole_episodes(rows, self._rollouts.window()) if len(row.turns) == row.episode.turns]
        if whole:
            shared = self._shared_actions(n, version)
            self._attach(self._supply([whole], n, logprobs=True, shared=shared), whole)
        return whole

    def count_fresh(self) -> int:
        """Return the number of fresh actions that engines have answered with since the last call; 0 but on rank 0."""
        total = 0
        while self._drawn:
            total += self._drawn.popleft()
        return total

    def update_priorities(self, micro_batches: list[list[Row]], td_errors: Sequence[np.ndarray]) -> None:
        """Send replay the TD errors of a step as priorities. Called on every rank.

        Args:
            td_errors: of each micro-batch, float32 [samples].
        """
        drawn = [row for rows in micro_batches for row in rows]
        keys = np.array([row.key for row in drawn]).repeat([len(row.turns) for row in drawn], axis=0)
        mine = (*keys.T, np.concatenate([row.turns for row in drawn]), np.concatenate(td_errors))
        gathered = self._leader.gather(mine)
        if gathered is not None:
            self._replay.update_priorities_at(*map(np.concatenate, zip(*gathered, strict=True)))

    def _take(self, draws: Draws, version: int) -> _Ahead:
        """Return the steps that were drawn in advance, or start from none."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and (ahead.draws, ahead.version) != (draws, version):
            ahead.cancel()
            ahead = None
        return ahead or _Ahead(draws, version)

    def _fill(self, ahead: _Ahead) -> None:
        """Draw steps and request fresh actions, up to the limit of `prefetch_steps`."""
        draws, most = ahead.draws, self._config.prefetch_steps
        if ahead.drawn == 0:
            stats = self._replay.stats()
            draws.require_enough(stats.turns if draws.unit == "turn" else stats.episodes)
        # A block of at least half the limit shares states between its steps and still keeps the engines busy.
        if ahead.drawn < draws.steps and len(ahead.steps) <= most // 2:
            steps = min(most - len(ahead.steps), draws.steps - ahead.drawn)
            ahead.steps.extend(self._draw(draws, steps, ahead.version))
            ahead.drawn += steps
        new = [item for item in ahead.steps if item.fresh is None]
        if draws.fresh and new:
            shared = self._shared_actions(draws.fresh, ahead.version) if draws.distinct else None
            rows = [item.rows for item in new]
            supply = self._supply(rows, draws.fresh, logprobs=draws.logprobs, shared=shared)
            for item in new:
                item.fresh = supply

    def _supply(
        self, rows: Sequence[Sequence[Row]], n: int, *, logprobs: bool, shared: SharedActions | None
    ) -> FreshSupply:
        supply = FreshSupply(self._rollouts, rows, n, logprobs=logprobs, shared=shared)
        supply.report_drawn(self._drawn.append)
        return supply

    def _shared_actions(self, n: int, version: int) -> SharedActions:
        if version != self._shared_version:
            self._shared, self._shared_version = {}, version
        return self._shared.setdefault(n, SharedActions())

    def _draw(self, draws: Draws, steps: int, version: int) -> list[_Pending]:
        """Return the next steps, drawn together so that they share episodes."""
        sample, recent = self._sample(draws, steps, version)
        episodes, turns = sample.episodes, sample.turns
        cuts = [slice(first, first + draws.batch) for first in range(0, steps * draws.batch, draws.batch)]
        if draws.sampler == "uniform":
            rows = [rows_from_samples(episodes[cut], turns[cut]) for cut in cuts]
        else:
            weights = sample.importance_weights(draws.importance)
            keys = list(zip(sample.shards.tolist(), sample.seqs.tolist(), strict=True))
            rows = [rows_from_samples(episodes[cut], turns[cut], weights=weights[cut], keys=keys[cut]) for cut in cuts]
        if draws.bootstraps:
            rows = [whole_episodes(of_step, self._rollouts.window()) for of_step in rows]
        return [_Pending(of_step, recent / draws.batch) for of_step in rows]

    def _sample(self, draws: Draws, steps: int, version: int) -> tuple[Sample, int]:
        """Return the samples of steps, step after step, and how many of each step are of recent episodes."""

        def sample(request: SampleRequest) -> Sample:
            return self._replay.sample(request, timeout_s=self._config.timeout_s)

        asked = draws.most_recent
        recent, parts = 0, []
        if asked:
            try:
                parts.append(sample(draws.recent_request(steps * asked, version)))
                recent = draws.recent(parts[0].population)
            except EmptyViewError:
                pass  # The policy has not played yet, for example in an offline cycle; the phase's metric says so.
        rest = draws.batch - recent
        if rest:
            parts.append(sample(draws.request(steps * rest, version)))
        if len(parts) == 1:
            return parts[0], recent
        first, second = (np.arange(steps * n).reshape(steps, n) for n in (asked, rest))
        return Sample.mixed(parts, order=np.hstack((first[:, :recent], steps * asked + second)).ravel()), recent

    def _complete(self, item: _Pending) -> list[Batch]:
        """Wait for the fresh actions of a step and return each rank's share of it."""
        started = time.monotonic()
        if item.fresh is not None:
            self._attach(item.fresh, item.rows)
        batches = split(item.rows, self._leader.ranks, self._config.micro_batch, time.monotonic() - started)
        return [replace(batch, recent_share=item.recent) for batch in batches]

    def _attach(self, fresh: FreshSupply, rows: list[Row]) -> None:
        """Wait for the fresh actions of `rows` and attach them."""
        try:
            fresh.attach(rows, self._config.timeout_s)
        except FutureTimeoutError as error:
            workers = [f"{w.name} ({'ready' if w.ready else 'not ready'})" for w in self._rollouts.workers()]
            raise WaitTimeoutError(
                f"no fresh actions within {self._config.timeout_s:.0f} s from "
                f"{', '.join(workers) or 'any worker: there is none'}; see the workers' logs, or raise "
                "learner.timeout_s"
            ) from error
