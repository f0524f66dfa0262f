"""Feeds a phase: samples from replay, fresh actions from the engines, both ahead of need.

The policy is frozen until the weights go out at a cycle's end, so the fresh actions of all steps of a phase are asked
for at once and written while the learner is at work on the first of them; those of the next phase follow. What is held
in memory meanwhile is bounded by `prefetch_steps`: of either phase the distinct episodes that so many steps draw, and
their fresh actions.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from buffer.sampling.request import SampleRequest
from learner.algorithms.base import Phase
from learner.config import LearnerConfig
from learner.errors import LearnerError, WaitTimeoutError
from learner.feeding.fresh_actions import FreshSupply
from learner.feeding.sweeps import Sweeps
from learner.passes.rows import Row, deal, rows_from_samples
from learner.ranks import Leader

if TYPE_CHECKING:
    from learner.protocols import PrioritisedDrawn, PrioritySource, RolloutService, SampleSource


@dataclass(frozen=True)
class Batch:
    """One rank's share of a global batch.

    Attributes:
        micro_batches: rows of this rank.
        samples: samples of the global batch.
        waited_s: seconds that rank 0 waited for fresh actions.
    """

    micro_batches: list[list[Row]]
    samples: int
    waited_s: float


@dataclass
class _Pending:
    """Rows of a step, and where their fresh actions come from; None where they are not asked for yet."""

    rows: list[Row]
    fresh: FreshSupply | None = None


@dataclass
class _Ahead:
    """The next steps of a phase under a policy version, and how many of its steps were drawn in all."""

    of: tuple[Phase, int]
    steps: deque[_Pending] = field(default_factory=deque)
    drawn: int = 0

    def forget(self) -> None:
        """Give up the fresh actions of all steps that are left."""
        for item in self.steps:
            if item.fresh is not None:
                item.fresh.cancel()
                item.fresh = None


class Feeder:
    """Gives the batches of a phase, on each rank its own share."""

    def __init__(self, replay: SampleSource, rollouts: RolloutService, leader: Leader, config: LearnerConfig) -> None:
        self._replay = replay
        self._rollouts = rollouts
        self._leader = leader
        self._config = config
        self._ahead: _Ahead | None = None
        self.sweeps = Sweeps()

    def batches(self, phase: Phase, version: int, then: Phase | None = None) -> Iterator[Batch]:
        """All batches of a phase of draws, `phase.epochs` times over.

        Args:
            version: the current policy version, from which `phase.max_staleness` counts back.
            then: the phase of draws that will follow with the same version; its actions are asked for after this one's,
                unless it draws from recent episodes only: those must be the ones at its own beginning.
        """
        if then is not None and then.max_staleness is not None:
            then = None
        kept: list[Batch] = []
        ahead = self._take((phase, version))

        def next_batch() -> list[Batch]:
            try:
                self._fill(ahead)
                if then is not None and ahead.drawn == phase.steps:
                    self._ahead = self._ahead or _Ahead((then, version))
                    self._fill(self._ahead)
                batch = self._complete(ahead.steps[0])
            except self._rollouts.stale_error:
                # The engines are about to get new weights: what is under way is asked for again.
                ahead.forget()
                if self._ahead is not None:
                    self._ahead.forget()
                raise
            ahead.steps.popleft()
            return batch

        try:
            for _ in range(phase.steps):
                batch = self._leader.scatter(next_batch)
                if phase.epochs > 1:
                    kept.append(batch)
                yield batch
        finally:
            # Where the phase ends early, nobody waits for the rest.
            ahead.forget()
        for _ in range(phase.epochs - 1):
            yield from kept

    def sweep(self, phase: Phase, version: int, seed: int) -> list[Batch]:
        """The batches of a phase that takes each episode once, split at random by `seed`.

        Every batch has `phase.batch` episodes or a few more or less, and at least one for each rank. There is none
        where all that the window holds was taken by earlier sweeps.
        """

        def split() -> list[list[Batch]]:
            episodes = self._replay.sweep(
                view=_view(phase), min_version=_min_version(phase, version), timeout_s=self._config.timeout_s
            )
            episodes = self.sweeps.take(episodes, group=phase.group, at_least=self._leader.ranks)
            if not episodes:
                return [[] for _ in range(self._leader.ranks)]
            rows = rows_from_samples(episodes, np.full(len(episodes), -1))
            order = np.random.default_rng(seed).permutation(len(rows))
            pieces = max(1, min(round(len(rows) / phase.batch), len(rows) // self._leader.ranks))
            parts = [[rows[i] for i in piece] for piece in np.array_split(order, pieces)]
            batches = [self._deal(part, waited_s=0.0) for part in parts]
            return [[batch[rank] for batch in batches] for rank in range(self._leader.ranks)]

        return self._leader.scatter(split)

    def _require_enough(self, phase: Phase) -> None:
        """A batch of more samples than there are would count some of them several times."""
        held = self._replay.stats()
        there = held.turns if phase.unit == "turn" else held.episodes
        if phase.batch > there:
            raise LearnerError(
                f"a step of the {phase.name} phase draws {phase.batch} {phase.unit}s, and there are {there}; lower the "
                "phase's `batch`, or raise episodes_per_cycle or the number of demonstrations"
            )

    def _draw(self, phase: Phase, steps: int, version: int) -> list[list[Row]]:
        """The rows of the next `steps` steps, drawn in one call so that an episode is held once for all of them."""
        request = SampleRequest(
            steps * phase.batch,
            view=_view(phase),
            unit=phase.unit,
            sampler=phase.sampler,
            min_version=_min_version(phase, version),
            best=phase.best,
        )
        sample = self._replay.sample(request, timeout_s=self._config.timeout_s)
        episodes, turns = sample.episodes, sample.turns
        cuts = [slice(first, first + phase.batch) for first in range(0, steps * phase.batch, phase.batch)]
        if phase.sampler == "uniform":
            return [rows_from_samples(episodes[cut], turns[cut]) for cut in cuts]
        drawn = cast("PrioritisedDrawn", sample)
        weights = drawn.importance_weights(phase.importance)
        keys = list(zip(drawn.shards.tolist(), drawn.seqs.tolist(), strict=True))
        return [rows_from_samples(episodes[cut], turns[cut], weights=weights[cut], keys=keys[cut]) for cut in cuts]

    def update_priorities(self, micro_batches: list[list[Row]], td_errors: Sequence[np.ndarray]) -> None:
        """Tell replay the TD errors of what was drawn from it; called on every rank after each step.

        Args:
            td_errors: of each micro-batch, float32 [samples].
        """
        mine = [
            (*key, turns, errors)
            for rows, of_rows in zip(micro_batches, td_errors, strict=True)
            for key, turns, errors in _by_row(rows, of_rows)
        ]
        gathered = self._leader.gather(mine)
        if gathered is None:
            return
        told = [row for of_rank in gathered for row in of_rank]
        counts = [len(turns) for *_, turns, _ in told]
        cast("PrioritySource", self._replay).update_priorities_at(
            np.repeat([shard for shard, *_ in told], counts),
            np.repeat([seq for _, seq, *_ in told], counts),
            np.concatenate([turns for *_, turns, _ in told]),
            np.concatenate([errors for *_, errors in told]),
        )

    def _take(self, of: tuple[Phase, int]) -> _Ahead:
        """What was drawn of a phase already, on rank 0; elsewhere and else a new beginning."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.of != of:
            ahead.forget()
            ahead = None
        return ahead or _Ahead(of)

    def _fill(self, ahead: _Ahead) -> None:
        """Draw and ask for what is due of a phase."""
        phase, version = ahead.of
        most = self._config.prefetch_steps
        if ahead.drawn == 0:
            self._require_enough(phase)
        # Blocks of half that size or more: large enough to share states, early enough that no engine idles.
        if ahead.drawn < phase.steps and len(ahead.steps) <= most // 2:
            steps = min(most - len(ahead.steps), phase.steps - ahead.drawn)
            ahead.steps.extend(map(_Pending, self._draw(phase, steps, version)))
            ahead.drawn += steps
        new = [item for item in ahead.steps if item.fresh is None]
        if phase.fresh and new:
            supply = FreshSupply(self._rollouts, [i.rows for i in new], phase.fresh, logprobs=phase.logprobs)
            for item in new:
                item.fresh = supply

    def _complete(self, item: _Pending) -> list[Batch]:
        started = time.monotonic()
        if item.fresh is not None:
            try:
                item.fresh.attach(item.rows, self._config.timeout_s)
            except FutureTimeoutError as error:
                raise WaitTimeoutError(
                    f"no fresh actions within {self._config.timeout_s:.0f} s from {_names(self._rollouts)}; see the "
                    "workers' logs, or raise learner.timeout_s"
                ) from error
        return self._deal(item.rows, waited_s=time.monotonic() - started)

    def _deal(self, rows: list[Row], *, waited_s: float) -> list[Batch]:
        """Each rank's share of one global batch."""
        samples = sum(len(row.turns) for row in rows)
        shares = deal(rows, self._leader.ranks, self._config.micro_batch)
        return [Batch(share, samples, waited_s) for share in shares]


def _by_row(rows: Sequence[Row], errors: np.ndarray) -> Iterator[tuple[tuple[int, int], np.ndarray, np.ndarray]]:
    """(key, turns, TD errors) of each row; `errors` run over the samples of all."""
    ends = np.cumsum([len(row.turns) for row in rows])
    for row, part in zip(rows, np.split(errors, ends[:-1]), strict=True):
        if row.key is not None:
            yield row.key, row.turns, part


def _view(phase: Phase) -> Literal["critic", "actor"]:
    return "critic" if phase.max_staleness is None else "actor"


def _min_version(phase: Phase, version: int) -> int | None:
    return None if phase.max_staleness is None else max(version - phase.max_staleness, 0)


def _names(rollouts: RolloutService) -> str:
    workers = [f"{w.name} ({'ready' if w.ready else 'not ready'})" for w in rollouts.workers()]
    return ", ".join(workers) or "any worker: there is none"
