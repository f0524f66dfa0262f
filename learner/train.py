"""The training function: clone the demonstrations, then cycles of rollout, phases and broadcast.

The trainer knows no algorithm: it asks for phases, feeds them, and hands the weights out. Invariants: the engines'
policy version is `state.version` whenever a phase begins; every broadcast is proved; a cycle that is checkpointed is
complete.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import ray.util
import torch
import torch.distributed as dist
from transformers import AutoTokenizer

from buffer.rollout_records import CollectReport
from learner.algorithms.base import Algorithm, Phase, StepResult
from learner.algorithms.bc import BehaviourCloning
from learner.algorithms.registry import build
from learner.algorithms.setup import Setup
from learner.broadcast.broadcaster import Broadcaster
from learner.broadcast.policy_source import PolicySource
from learner.engine import checkpoint_folders, checkpoints
from learner.engine.accelerator import deepspeed
from learner.engine.checkpoints import TrainerState
from learner.entry import TrainArgs
from learner.errors import CheckpointError, LearnerError, NonFiniteLossError
from learner.feeding.demonstrations import DemonstrationSet
from learner.feeding.feeder import Batch, Feeder
from learner.feeding.sweeps import Sweeps
from learner.metrics import LearnerMetrics
from learner.models.adapter_files import Base, require_base
from learner.models.policy import sequence_logprobs
from learner.passes.precision import DTYPES
from learner.ranks import Leader
from learner.seeds import EVALUATION_SEED


class Trainer:
    """One rank of the learner. Ranks run the same calls in the same order."""

    def __init__(self, args: TrainArgs) -> None:
        self.args = args
        self.config = args.learner
        self.rank = dist.get_rank()
        self.state = TrainerState.read(args.resume) if args.resume else TrainerState(next_seed=first_seed(args.seed))
        self.tokenizer = AutoTokenizer.from_pretrained(args.model)
        self.leader = Leader(args.rollouts.stale_error, self._rebroadcast)
        self.feeder = Feeder(args.replay, args.rollouts, self.leader, self.config)
        self.feeder.sweeps = Sweeps(self.state.swept)
        self.metrics = LearnerMetrics()
        self._started = time.monotonic() - self.state.wall_seconds
        self._last_step_event = 0.0
        # Of the episodes that rollouts in async mode have stored, on rank 0: when they began, and reported since.
        self._inserted = self._reported = 0
        self._ahead = 0
        self.algorithm: Algorithm
        self.source: PolicySource
        self.broadcaster: Broadcaster | None = None
        self.base: Base | None = None

    def run(self) -> None:
        """Train from the start, or from `args.resume`, to the last cycle."""
        if self.args.resume is None:
            model = self._clone() if self.config.clone.steps else self.args.model
            self._learn_by(self._setup(model))
            if self.config.lora is not None and self.config.lora.adapter is not None:
                # The engines came up with the base.
                self._broadcast()
        else:
            self._learn_by(self._setup(self.args.model))
            self.algorithm.load(self.args.resume)
            if self.state.cycle:
                self.algorithm.finish_cycle(self.state.cycle - 1)
            checkpoints.load_random_streams(self.args.resume)
            if self.rank == 0:
                self.args.replay.load_state_dict(self.state.replay_client)
        self._publish({"kind": "stage", "stage": "train"})
        while self.state.cycle < self.args.offline_cycles:
            self._cycle(online=False)
        if self.args.mode == "async":
            self.leader.call(self._start_rollouts)
        while self.state.cycle < self.args.cycles:
            self._cycle(online=True)
        if self.args.mode == "async":
            self.leader.call(self.args.rollouts.stop)
        self._evaluate("final")
        self._save()

    # Stages

    def _clone(self) -> str:
        """Behavioural cloning of the demonstrations. Returns the folder of the cloned policy."""
        source = DemonstrationSet(self.args.demonstrations, self.args.seed)
        feeder = Feeder(source, self.args.rollouts, self.leader, self.config)
        self._publish({"kind": "stage", "stage": "clone"})
        self.algorithm = cloning = BehaviourCloning.build(self._cloning_setup())
        # The engines come up meanwhile: nothing here needs them.
        self._phase(cloning.stage, feeder)
        self._use(cloning)
        directory = self.args.run_dir / "clone"
        checkpoints.export_policy(self.algorithm.policy_model, self.source, self.tokenizer, directory)
        self._broadcast()
        self._evaluate("clone")
        return str(directory)

    def _setup(self, model: str) -> Setup:
        args = self.args
        clone = args.run_dir / "clone"
        return Setup(
            model,
            reference=str(clone) if self.config.clone.steps else args.start_model,
            tokenizer=self.tokenizer,
            config=self.config,
            temperature=args.temperature,
            window=args.max_staleness if args.mode == "async" else 0,
            offline_cycles=args.offline_cycles,
            scorer=args.scorer,
        )

    def _cloning_setup(self) -> Setup:
        """The clone becomes the base, so there is none yet: train a whole model, or an adapter on what is there."""
        lora, model = self.config.lora, self.args.model
        whole = lora is None or lora.clone == "full"
        config = self.config.model_copy(update={"lora": None}) if whole else self.config
        return replace(self._setup(model), reference=model, config=config)

    def _learn_by(self, setup: Setup) -> None:
        """Let the run's algorithm learn. Raises AdapterError where the checkpoint's adapter is for another base."""
        if self.config.lora is not None:
            self.base = setup.base_record
            if self.args.resume is not None:
                require_base(self.args.resume / "adapter", self.base)
        self._use(build(self.args.algorithm, setup))

    def _use(self, algorithm: Algorithm) -> None:
        """Let `algorithm` learn and its policy be what is broadcast."""
        self.algorithm = algorithm
        self.window = self.leader.call(self._engine_window)
        # Engines that compute in bfloat16 would round the weights in any case.
        wire_dtype = DTYPES[self.config.dtype] if self.config.dtype != "float32" else None
        self.source = PolicySource(algorithm.policy_model, wire_dtype)
        if self.broadcaster is not None:
            self.broadcaster.close()
        settings = self.config.broadcast
        self.broadcaster = Broadcaster(
            source=self.source,
            rollouts=self.args.rollouts,
            backend=settings.backend,
            rank=self.rank,
            timeout_s=settings.timeout_s,
            logprobs_fn=self._sequence_logprobs,
            probe_tokens=self._probe_tokens(),
            tolerance=settings.tolerance,
        )

    # One cycle

    def _cycle(self, *, online: bool) -> None:
        cycle = self.state.cycle
        timings: dict[str, float] = {}
        metrics: dict[str, float] = {}
        if online:
            started = time.monotonic()
            report = self.leader.call(lambda: self._rollout(cycle))
            timings["rollout"] = time.monotonic() - started
            self.state.episodes += len(report.returns)
            self.state.turns += int(report.turns.sum())
            self.state.next_seed = report.next_seed
            metrics |= rollout_metrics(report, self.state.version)
        phases = self.algorithm.phases(cycle)
        for phase, then in zip_longest(phases, phases[1:]):
            started = time.monotonic()
            self._publish({"kind": "phase", "cycle": cycle, "phase": phase.name})
            metrics |= self._phase(phase, self.feeder, then)
            timings[phase.name] = time.monotonic() - started
        self.algorithm.finish_cycle(cycle)
        started = time.monotonic()
        if "actor" in timings:
            self._publish({"kind": "phase", "cycle": cycle, "phase": "broadcast"})
            metrics["proof_gap"] = self._broadcast()
        timings["broadcast"] = time.monotonic() - started
        self.state.cycle += 1
        self.metrics.cycle.set(self.state.cycle)
        metrics |= {f"seconds/{name}": seconds for name, seconds in timings.items()}
        metrics |= {
            "episodes": self.state.episodes,
            "turns": self.state.turns,
            "policy_version": self.state.version,
            "wall_seconds": time.monotonic() - self._started,
        }
        self._publish({"kind": "cycle", "cycle": self.state.cycle, "metrics": metrics})
        args = self.args
        if args.evaluation_every and self.state.cycle % args.evaluation_every == 0 and self.state.cycle < args.cycles:
            self._evaluate(f"cycle-{self.state.cycle}")
        if self.state.cycle % args.checkpoint_every == 0 and self.state.cycle < args.cycles:
            self._save()

    def _unreported(self) -> int:
        """Episodes that have come since the last report: a sweep has taken them, so the next cycle waits for others."""
        return max(self.args.replay.stats().inserted_episodes - self._inserted - self._reported, 0)

    def _align(self) -> None:
        """Let the first episode of a run begin a group, so that no group is cut in two by the end of a cycle."""
        if self.state.episodes == 0:
            self.state.next_seed -= self.state.next_seed % self.algorithm.group

    def _rollout(self, cycle: int) -> CollectReport:
        self._publish({"kind": "phase", "cycle": cycle, "phase": "rollout"})
        if self.args.mode == "sync":
            self._align()
            return self.args.rollouts.collect(
                self.args.episodes_per_cycle,
                first_seed=self.state.next_seed,
                group=self.algorithm.group,
                timeout_s=self.config.timeout_s,
            )
        report = self.args.rollouts.report(
            at_least=self.args.episodes_per_cycle + self._ahead, timeout_s=self.config.timeout_s
        )
        self._reported += len(report.returns)
        return report

    def _start_rollouts(self) -> None:
        self._align()
        self._inserted = self.args.replay.stats().inserted_episodes
        self.args.rollouts.start(
            first_seed=self.state.next_seed,
            episodes_per_version=self.args.episodes_per_cycle,
            max_staleness=self.args.max_staleness,
            group=self.algorithm.group,
        )

    def _phase(self, phase: Phase, feeder: Feeder, then: Phase | None = None) -> dict[str, float]:
        """All steps of a phase. Returns each metric's mean over the steps, their number and that of their samples, and
        seconds waited for fresh actions."""
        totals: dict[str, float] = {}
        steps, samples, waited = 0, 0, 0.0
        for batch in self._batches(phase, feeder, then):
            started = time.monotonic()
            result = self._step(phase, steps, batch)
            if phase.sampler == "prioritised":
                feeder.update_priorities(batch.micro_batches, result.td_errors)
            steps += 1
            samples += batch.samples
            waited += batch.waited_s
            for name, value in result.metrics.items():
                totals[name] = totals.get(name, 0.0) + value
                self.metrics.value.labels(name).set(value)
            self.metrics.step_seconds.labels(phase.name).observe(time.monotonic() - started)
            self.metrics.wait_seconds.labels(phase.name).inc(batch.waited_s)
            self.metrics.samples.labels(phase.name).inc(batch.samples)
            self._publish_step(phase, steps, result.metrics)
            if result.stop:
                break
        means = {name: value / max(steps, 1) for name, value in totals.items()}
        counts = {"steps": float(steps), "samples": float(samples), "wait_seconds": waited}
        return means | {f"{phase.name}/{name}": value for name, value in counts.items()}

    def _batches(self, phase: Phase, feeder: Feeder, then: Phase | None) -> Iterator[Batch]:
        if not phase.sweep:
            yield from feeder.batches(phase, self.state.version, then if then and not then.sweep else None)
            return
        # The same order on every rank, and after a resume.
        order = np.random.default_rng((self.args.seed, self.state.cycle))
        batches = feeder.sweep(phase, self.state.version, int(order.integers(2**31)))
        if self.args.mode == "async":
            self._ahead = self.leader.call(self._unreported)
        if not batches and self.args.mode == "sync":
            raise LearnerError(
                f"cycle {self.state.cycle} played fewer episodes than there are learner ranks ({self.leader.ranks}); "
                "raise episodes_per_cycle"
            )
        if not batches:
            return
        self.algorithm.begin(phase, [batch.micro_batches for batch in batches])
        for _ in range(phase.epochs):
            yield from (batches[i] for i in order.permutation(len(batches)))

    def _step(self, phase: Phase, step: int, batch: Batch) -> StepResult:
        """One step. Raises NonFiniteLossError, on every rank, where a loss, gradient or metric is not finite."""
        try:
            result = self.algorithm.step(phase, batch.micro_batches, batch.samples, self.state.version)
            bad = [name for name, value in result.metrics.items() if not math.isfinite(value)]
            if bad:
                mine = [row.episode.episode_id for micro_batch in batch.micro_batches for row in micro_batch]
                raise NonFiniteLossError(f"{', '.join(bad)} not finite; rank {self.rank} trained on {', '.join(mine)}")
        except NonFiniteLossError as error:
            raise NonFiniteLossError(
                f"step {step} of the {phase.name} phase in cycle {self.state.cycle}: {error}. The last checkpoint is "
                "untouched: look at these episodes' rewards, or lower the learning rate, and go on with `archer train "
                "--resume`"
            ) from error
        return result

    # Weights

    def _broadcast(self) -> float:
        """Hand out the weights as the next policy version; returns the proof's largest gap."""
        self.state.version += 1
        return self._rebroadcast()

    def _rebroadcast(self) -> float:
        assert self.broadcaster is not None
        started = time.monotonic()
        gap = self.broadcaster.broadcast(self.state.version)
        self.state.proof_max_gap = max(self.state.proof_max_gap, gap)
        self.metrics.policy_version.set(self.state.version)
        self.metrics.broadcast_seconds.observe(time.monotonic() - started)
        self.metrics.proof_gap.set(gap)
        return gap

    def _sequence_logprobs(self, tokens: np.ndarray) -> np.ndarray:
        """Return the learning policy's log-probabilities of a sequence. Called on every rank."""
        return sequence_logprobs(self.algorithm.policy, tokens, self.algorithm.policy.device)

    def _engine_window(self) -> int:
        self.args.rollouts.ready(self.config.timeout_s)
        return self.args.rollouts.window()

    def _probe_tokens(self) -> np.ndarray:
        """A fixed sequence over the whole vocabulary: many rows of the embedding and of the head take part."""
        generator = np.random.default_rng(self.args.seed)
        length = min(self.config.broadcast.probe_tokens, self.window - 1)
        return generator.integers(0, len(self.tokenizer), length, dtype=np.int32)

    # Records

    def _evaluate(self, name: str) -> None:
        """Sampled episodes on seeds that training never sees, not stored in replay."""
        if not self.args.evaluation_episodes:
            return
        self._publish({"kind": "stage", "stage": "evaluate"})
        report = self.leader.call(
            lambda: self.args.rollouts.collect(
                self.args.evaluation_episodes,
                first_seed=EVALUATION_SEED,
                store=False,
                greedy=self.args.evaluation_greedy,
                timeout_s=self.config.timeout_s,
            )
        )
        self.state.evaluations[name] = float(report.returns.mean())
        self._publish(
            {
                "kind": "evaluation",
                "name": name,
                "collected_episodes": self.state.episodes,
                "returns": report.returns.tolist(),
                "successes": report.successes.tolist(),
                "turns": report.turns.tolist(),
                "invalid_actions": report.invalid_actions.tolist(),
            }
        )

    def _save(self) -> None:
        """Write a checkpoint, on all ranks together. Raises CheckpointError; earlier ones are untouched then."""
        self._publish({"kind": "phase", "cycle": self.state.cycle, "phase": "checkpoint"})
        folder = self.args.run_dir / "checkpoints"
        try:
            self._write(folder)
        except (OSError, RuntimeError) as error:  # torch's writer says RuntimeError where the disk is full
            raise CheckpointError(
                f"the checkpoint of cycle {self.state.cycle} could not be written to {folder}: {error}. Free some "
                "space, then go on from the one before with `archer train --resume`"
            ) from error

    def _write(self, folder: Path) -> None:
        args = self.args
        partial = self.leader.call(lambda: checkpoint_folders.begin(folder, self.state.cycle))
        self.algorithm.save(partial)
        checkpoints.save_random_streams(partial)
        checkpoints.export_policy(self.algorithm.policy_model, self.source, self.tokenizer, partial / "policy")
        if self.config.lora is not None and self.base is not None:
            checkpoints.export_adapter(self.source.only("adapter"), partial / "adapter", self.config.lora, self.base)

        def finish() -> None:
            args.replay.checkpoint(partial / "replay")
            self.state.replay_client = args.replay.state_dict()
            self.state.swept = sorted(self.feeder.sweeps.taken)
            self.state.wall_seconds = time.monotonic() - self._started
            self.state.write(partial)
            path = checkpoint_folders.commit(partial, args.checkpoint_keep)
            self._publish({"kind": "checkpoint", "path": str(path), "state": asdict(self.state)})

        self.leader.call(finish)

    def _publish(self, event: dict[str, Any]) -> None:
        if self.rank == 0:
            self.args.board.publish(event)

    def _publish_step(self, phase: Phase, step: int, metrics: dict[str, float]) -> None:
        """Steps can be many a second; the run's progress wants two."""
        now = time.monotonic()
        if now - self._last_step_event > 0.5:
            self._last_step_event = now
            steps = max(phase.steps * phase.epochs, step)
            self._publish({"kind": "step", "phase": phase.name, "step": step, "steps": steps, "metrics": metrics})


def first_seed(seed: int) -> int:
    """Environment seed of the first training episode of a run with `seed`."""
    return seed * 1_000_003 % (EVALUATION_SEED // 2)


def rollout_metrics(report: CollectReport, version: int) -> dict[str, float]:
    """What a cycle's episodes say, as metrics.

    Args:
        version: policy version when they were reported; staleness is how far their tokens lag behind it.
    """
    if len(report.returns) == 0:
        raise LearnerError(
            f"none of a cycle's episodes finished: all {report.env_failures} failed in the environment; the workers' "
            "logs hold its error"
        )
    successes = report.successes[~np.isnan(report.successes)]
    return {
        "return": float(report.returns.mean()),
        "success_rate": float(successes.mean()) if len(successes) else float("nan"),
        "invalid_actions": float(report.invalid_actions.mean()),
        "mean_turns": float(report.turns.mean()),
        "staleness": version - float(report.versions.mean()),
        "tokens_per_second": report.action_tokens / max(report.seconds, 1e-9),
        "env_failures": float(report.env_failures),
        "lost": float(report.lost),
    }


def train_function(args: TrainArgs) -> None:
    """One rank, from `torch.distributed` being up to the end of the run."""
    torch.set_num_threads(args.learner.threads)
    deepspeed.init_distributed(dist_backend=dist.get_backend(), verbose=False)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(args.seed)
    trainer = Trainer(args)
    args.board.register_target("learner", f"rank-{trainer.rank}", f"{_node_ip()}:{trainer.metrics.serve()}")
    trainer.run()


def _node_ip() -> str:
    return str(ray.util.get_node_ip_address())
