"""Collects episodes from the rollouts: those of each cycle, in both modes, and those of evaluations."""

from __future__ import annotations

from dataclasses import replace

from buffer.rollout_records import CollectReport
from learner.engine.checkpoints import TrainerState
from learner.history.recorder import Recorder
from learner.ranks import Leader
from learner.records import Records, rollout_metrics
from learner.seeds import EVALUATION_SEED
from learner.train_args import TrainArgs


class Collector:
    """Calls the rollouts from rank 0 and counts episodes in the run's state. Every rank makes the same calls.

    Attributes:
        group: number of episodes of each environment seed.
    """

    def __init__(
        self, args: TrainArgs, state: TrainerState, leader: Leader, records: Records, recorder: Recorder
    ) -> None:
        self.args = args
        self.state = state
        self.leader = leader
        self.records = records
        self.recorder = recorder
        self.group = 1
        # On rank 0, in async mode: episodes in replay when `start` was called, and episodes reported since.
        self._inserted = self._reported = 0
        # Episodes that sweeps took before they were reported.
        self._ahead = 0

    def start(self) -> None:
        """In async mode, start the continuous rollouts."""
        if self.args.mode == "async":
            self.leader.call(self._start)

    def stop(self) -> None:
        """In async mode, stop the continuous rollouts."""
        if self.args.mode == "async":
            self.leader.call(self.args.rollouts.stop)

    def collect(self) -> dict[str, float]:
        """Wait for the episodes of the next cycle and return their metrics."""
        self.records.publish("phase", cycle=self.state.cycle, phase="rollout")
        report = self.leader.call(self._wait if self.args.mode == "async" else self._play)
        self.state.episodes += len(report.returns)
        self.state.turns += int(report.turns.sum())
        self.state.next_seed = report.next_seed
        self.records.dropped(f"cycle {self.state.cycle + 1}", self.state.cycle + 1, report)
        return rollout_metrics(report, self.state.version)

    def note_sweep(self) -> None:
        """Count the episodes that a sweep took before they were reported, so that the next cycle waits for others."""
        if self.args.mode == "async":
            self._ahead = self.leader.call(self._unreported)

    def continue_unchanged(self) -> None:
        """In async mode, admit another cycle's episodes of the same policy version, because nothing is broadcast."""
        if self.args.mode == "async":
            self.leader.call(lambda: self.args.rollouts.admit(self.args.episodes_per_cycle))

    def evaluate(self, name: str) -> CollectReport | None:
        """Play episodes on seeds that training never uses, without storing them, and record and return their results.

        Returns None if the run makes no evaluations.
        """
        args = self.args
        if not args.evaluation_episodes:
            return None
        self.records.publish("stage", stage="evaluate")
        report = self.leader.call(lambda: self._evaluate(name))
        self.records.dropped(f"evaluation {name}", self.state.cycle, report)
        self.records.evaluation(name, self.state.episodes, report)
        self.state.evaluations[str(self.state.cycle)] = float(report.returns.mean())
        return report

    def _evaluate(self, name: str) -> CollectReport:
        args, cycle = self.args, self.state.cycle
        report = args.rollouts.collect(
            args.evaluation_episodes,
            first_seed=EVALUATION_SEED,
            store=False,
            greedy=args.evaluation_greedy,
            timeout_s=args.learner.timeout_s,
            keep_every=self.recorder.every(args.evaluation_episodes, evaluation=True),
        )
        self.recorder.evaluation(report.kept, name, cycle, greedy=args.evaluation_greedy)
        return replace(report, kept=[])  # the other ranks need no episodes

    def _play(self) -> CollectReport:
        self._align()
        report = self.args.rollouts.collect(
            self.args.episodes_per_cycle,
            first_seed=self.state.next_seed,
            group=self.group,
            timeout_s=self.args.learner.timeout_s,
            keep_every=self._keep_every(),
        )
        return self._kept(report)

    def _keep_every(self) -> int:
        return self.recorder.every(self.args.episodes_per_cycle)

    def _kept(self, report: CollectReport) -> CollectReport:
        self.recorder.training(report.kept, self.state.cycle + 1)
        return replace(report, kept=[])

    def _wait(self) -> CollectReport:
        report = self.args.rollouts.report(
            at_least=self.args.episodes_per_cycle + self._ahead, timeout_s=self.args.learner.timeout_s
        )
        self._reported += len(report.returns)
        return self._kept(report)

    def _start(self) -> None:
        self._align()
        self._inserted = self.args.replay.stats().inserted_episodes
        self.args.rollouts.start(
            first_seed=self.state.next_seed,
            episodes_per_version=self.args.episodes_per_cycle,
            max_staleness=self.args.max_staleness,
            group=self.group,
            keep_every=self._keep_every(),
        )

    def _align(self) -> None:
        """Begin a run's first episode, and the first one of ranks that restarted, at the start of a group: then a cycle
        ends at the end of a group."""
        if self.args.restarts:
            self.state.next_seed += -self.state.next_seed % self.group
        elif self.state.episodes == 0:
            self.state.next_seed -= self.state.next_seed % self.group

    def _unreported(self) -> int:
        return max(self.args.replay.stats().inserted_episodes - self._inserted - self._reported, 0)


def first_seed(seed: int) -> int:
    """Return the environment seed of the first training episode of a run with `seed`."""
    return seed * 1_000_003 % (EVALUATION_SEED // 2)
