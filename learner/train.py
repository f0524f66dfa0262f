"""The trainer: cycles of rollout, phases and broadcast, for any algorithm.

Invariants: when a phase begins, the engines' policy version is `state.version`. Every broadcast is proved
before anything learns from what the engines have played with it. A checkpoint is of a complete cycle.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import zip_longest

import numpy as np
import torch.distributed as dist

from learner.algorithms.base import Algorithm, StepResult
from learner.algorithms.phases import Draws, Phase, Sweep
from learner.engine.checkpoint_folders import STOP_FILE
from learner.errors import LearnerError, NonFiniteLossError
from learner.feeding.feeder import Feeder
from learner.feeding.kept_episodes import kept_micro_batches
from learner.feeding.new_episodes import NewEpisodes
from learner.feeding.sweeps import Sweeps
from learner.passes.rows import Batch
from learner.session import Session


class Trainer:
    """Runs the cycles of one algorithm on one rank. Every rank makes the same calls in the same order."""

    def __init__(self, session: Session, algorithm: Algorithm) -> None:
        args = session.args
        self.session = session
        self.args = args
        self.state = session.state
        self.algorithm = algorithm
        if algorithm.used is not None:
            algorithm.used.limit = args.history.turns_per_cycle
        self.feeder = Feeder(args.replay, args.rollouts, session.leader, session.config)
        self.sweeps = Sweeps(args.replay, session.leader, session.config, self.state.swept)
        staleness = args.max_staleness if args.mode == "async" else 0
        self.new_episodes = NewEpisodes(args.replay, session.leader, session.config, staleness, self.state.diagnosed)
        # Whether a step has changed the policy since the engines got it.
        self._moved = False

    def run(self) -> None:
        """Run all cycles that are left, the last evaluation and the last checkpoint."""
        args, collector = self.args, self.session.collector
        self.session.records.publish("stage", stage="train")
        self._evaluate_if_due()  # a stop may have left it out
        while self.state.cycle < args.offline_cycles:
            if self.cycle(online=False):
                return
        collector.start()
        while self.state.cycle < args.cycles:
            if self.cycle(online=True):
                return
        collector.stop()
        self.session.evaluate("final", self.algorithm)
        self.session.save(self.algorithm, self.sweeps.taken)
        # After the checkpoint: fresh actions move the engines' random streams.
        self._revalue(self.algorithm.fresh_to_diagnose)

    def cycle(self, *, online: bool) -> bool:
        """Run one cycle: collect episodes if `online`, run the phases, broadcast the policy if it has changed.

        Returns whether the driver has asked the ranks to end; the cycle has then a checkpoint.
        """
        session, cycle, version = self.session, self.state.cycle, self.state.version
        timings: dict[str, float] = {}
        metrics: dict[str, float] = {}
        new_turns: int | None = None
        if online:
            turns = self.state.turns
            with self._timed("rollout", timings):
                metrics |= session.collector.collect()
                session.settle()  # before anything learns from what the engines have played
            new_turns = self.state.turns - turns
            metrics |= self._diagnose(timings)
        else:
            session.settle()
        phases = [
            phase.counted(new_turns) if isinstance(phase, Draws) else phase for phase in self.algorithm.phases(cycle)
        ]
        for phase, then in zip_longest(phases, phases[1:]):
            session.records.publish("phase", cycle=cycle, phase=phase.name)
            with self._timed(phase.name, timings):
                metrics |= self.phase(phase, self._batches(phase, then))
        self.algorithm.finish_cycle(cycle)
        with self._timed("broadcast", timings):
            if any(phase.trains_policy for phase in phases):
                session.records.publish("phase", cycle=cycle, phase="broadcast")
                session.broadcast()
            elif online:
                session.collector.continue_unchanged()
        self._moved = False
        self.state.cycle += 1
        metrics |= {f"seconds/{name}": seconds for name, seconds in timings.items()}
        metrics |= {
            "episodes": self.state.episodes,
            "turns": self.state.turns,
            "policy_version": self.state.version,
            "wall_seconds": session.records.wall_seconds,
            "processor_seconds": session.records.processor_seconds,
            "fresh_actions": float(self.feeder.count_fresh()),
        }
        # That of the policy that played the cycle's episodes; the one just broadcast is being proved.
        gaps = {"pass_gap": self.args.pass_gap, "proof_gap": session.proof_gap}
        metrics |= {name: gap for name, gap in gaps.items() if gap is not None}
        session.recorder.values(self.algorithm.used, self.state.cycle, version)
        session.records.cycle(self.state.cycle, metrics)
        return self._evaluate_and_save()

    def _diagnose(self, timings: dict[str, float]) -> dict[str, float]:
        """Return figures of the critic on the cycle's episodes, before any step trains on them."""
        if not self.session.config.diagnosis_episodes or not self.algorithm.has_values:
            return {}
        version, fresh = self.state.version, self.algorithm.fresh_to_diagnose
        with self._timed("diagnosis", timings):
            micro_batches = self.new_episodes.micro_batches(
                version, seed=self.state.cycle, attach=lambda rows: self.feeder.with_fresh(rows, fresh, version)
            )
            self.state.diagnosed = self.new_episodes.seen
            found = self.algorithm.diagnose(micro_batches, self.args.exact) if micro_batches else {}
            self.session.records.diagnosis(found)
        return found

    @contextmanager
    def _timed(self, name: str, timings: dict[str, float]) -> Iterator[None]:
        """Add the seconds of the block to `timings` and to the metrics of the rank."""
        started = time.monotonic()
        with self.session.records.phase(name):
            yield
        timings[name] = time.monotonic() - started

    def _evaluate_and_save(self) -> bool:
        """Evaluate and write a checkpoint where this cycle is due; the last cycle's follow in `run`.

        If the driver has asked the ranks to end, write one in any case, evaluate nothing, and return True.
        """
        cycle, args, session = self.state.cycle, self.args, self.session
        stops = session.leader.call((args.run_dir / STOP_FILE).exists)
        if not stops and cycle < args.cycles:
            self._evaluate_if_due()
        if stops or (cycle < args.cycles and cycle % args.checkpoint_every == 0):
            session.save(self.algorithm, self.sweeps.taken)
        return stops

    def _evaluate_if_due(self) -> None:
        cycle, every = self.state.cycle, self.args.evaluation_every
        if every and 0 < cycle < self.args.cycles and cycle % every == 0 and str(cycle) not in self.state.evaluations:
            self.session.evaluate(f"cycle-{cycle}", self.algorithm)
            if not self.algorithm.fresh_to_diagnose:
                self._revalue(0)

    def _revalue(self, fresh: int) -> None:
        """Let the critic value kept episodes again, with `fresh` actions at each state, for people to look at."""
        args, version = self.args, self.state.version
        if not args.history.revalued_episodes or not self.algorithm.has_values:
            return
        micro_batches = kept_micro_batches(
            args.run_dir,
            args.history.revalued_episodes,
            self.session.leader,
            self.session.config,
            lambda rows: self.feeder.with_fresh(rows, fresh, version),
        )
        values = self.algorithm.revalue(micro_batches) if micro_batches else None
        self.session.recorder.newest(values, self.state.cycle, version)

    def phase(self, phase: Phase, batches: Iterable[Batch]) -> dict[str, float]:
        """Take a step on each batch.

        Returns the mean of each metric over the steps, and the number of steps and samples, the seconds of waiting for
        fresh actions, and the share of samples of recent episodes if the phase asks for one.
        """
        totals: dict[str, float] = {}
        steps, samples, waited, recent = 0, 0, 0.0, 0.0
        expected = phase.steps * phase.epochs if isinstance(phase, Draws) else 0
        for batch in batches:
            started = time.monotonic()
            with self.session.records.metrics.busy:
                result = self._step(phase, steps, batch)
            seconds = time.monotonic() - started
            if isinstance(phase, Draws) and phase.sampler == "prioritised":
                self.feeder.update_priorities(batch.micro_batches, result.td_errors)
            steps += 1
            samples += batch.samples
            waited += batch.waited_s
            recent += batch.recent_share
            for name, value in result.metrics.items():
                totals[name] = totals.get(name, 0.0) + value
            self._record(phase, steps, expected, batch, result, seconds)
            if result.stop:
                break
        means = {name: value / max(steps, 1) for name, value in totals.items()}
        counts = {"steps": float(steps), "samples": float(samples), "wait_seconds": waited}
        if isinstance(phase, Draws) and phase.recent_share:
            counts["recent_share"] = recent / max(steps, 1)
        return means | {f"{phase.name}/{name}": value for name, value in counts.items()}

    def _record(self, phase: Phase, step: int, steps: int, batch: Batch, result: StepResult, seconds: float) -> None:
        records = self.session.records
        if result.gaps is not None and not self._moved:
            records.mismatch(result.gaps)
        self._moved = self._moved or phase.trains_policy
        records.step(phase, step, steps, result.metrics, batch, seconds, self.state.version)

    def _batches(self, phase: Phase, then: Phase | None) -> Iterator[Batch]:
        if isinstance(phase, Draws):
            return self.feeder.batches(phase, self.state.version, then if isinstance(then, Draws) else None)
        return self._swept(phase)

    def _swept(self, sweep: Sweep) -> Iterator[Batch]:
        """Yield the batches of a sweep, in a new random order in each epoch."""
        session = self.session
        # The same order on every rank, and after a resume.
        order = np.random.default_rng((self.args.seed, self.state.cycle))
        batches = self.sweeps.batches(sweep, self.state.version, int(order.integers(2**31)))
        session.collector.note_sweep()
        if not batches and self.args.mode != "async":
            raise LearnerError(
                f"cycle {self.state.cycle} played fewer episodes than there are learner ranks "
                f"({session.leader.ranks}); raise episodes_per_cycle"
            )
        if not batches:
            return
        self.algorithm.begin([batch.micro_batches for batch in batches])
        for _ in range(sweep.epochs):
            yield from (batches[i] for i in order.permutation(len(batches)))

    def _step(self, phase: Phase, step: int, batch: Batch) -> StepResult:
        """Take one step. Raises NonFiniteLossError, on every rank, if a loss, gradient or metric is not finite."""
        try:
            result = self.algorithm.step(phase, batch.micro_batches, batch.samples, self.state.version)
            bad = [name for name, value in result.metrics.items() if not math.isfinite(value)]
            if bad:
                mine = [row.episode.episode_id for rows in batch.micro_batches for row in rows]
                raise NonFiniteLossError(
                    f"{', '.join(bad)} not finite; rank {dist.get_rank()} trained on {', '.join(mine)}"
                )
        except NonFiniteLossError as error:
            raise NonFiniteLossError(
                f"step {step} of the {phase.name} phase in cycle {self.state.cycle}: {error}. The last checkpoint is "
                "unchanged: check these episodes' rewards, or lower the learning rate, and continue with `archer "
                "train --resume`"
            ) from error
        return result
