"""What all stages of a run share on one rank, with the broadcasts and the checkpoints of the policy in use."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch.distributed as dist
from transformers import AutoTokenizer

from learner.algorithms.base import Algorithm
from learner.broadcast.in_process import InProcessBroadcaster, OwnWeights
from learner.broadcast.proof import BroadcastProofError, probe_positions
from learner.check.bounded import longest_window
from learner.collector import Collector, first_seed
from learner.engine import checkpoint_folders, checkpoints
from learner.engine.checkpoints import TrainerState
from learner.errors import CheckpointError
from learner.history.recorder import Recorder
from learner.models.adapter_files import Base
from learner.models.policy import sequence_logprobs
from learner.passes.precision import DTYPES
from learner.ranks import Leader
from learner.records import Records, evaluation_columns
from learner.train_args import TrainArgs

_BEYOND_WINDOW = 32
_LONGEST_PROBE = 2048

if TYPE_CHECKING:
    from learner.broadcast.broadcaster import Broadcaster


class Session:
    """The state of a run on one rank, its records, its collector of episodes, and its broadcasts and checkpoints.

    Attributes:
        base: identity of the frozen model under the adapters, if adapters are trained.
        proof_gap: largest gap of the last proof that has ended, None before the first.
    """

    def __init__(self, args: TrainArgs) -> None:
        self.args = args
        self.config = args.learner
        self.state = TrainerState.read(args.resume) if args.resume else TrainerState(next_seed=first_seed(args.seed))
        self.tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
        self.records = Records(args.board, self.state.wall_seconds, earlier_processor_s=self.state.processor_seconds)
        self.records.begin(args.pass_gap, self.config.broadcast.tolerance)
        self.leader = Leader(args.rollouts.stale_error, self._rebroadcast)
        self.recorder = Recorder(args.history, args.run_dir, self.tokenizer, self.leader.rank)
        self.collector = Collector(args, self.state, self.leader, self.records, self.recorder)
        self.base: Base | None = None
        self.proof_gap: float | None = None
        self._sent_s = 0.0
        self._sent_episodes = self.state.episodes
        self._best_return = self.leader.call(self._recall_best)
        self._broadcaster: Broadcaster | InProcessBroadcaster | None = None

    @property
    def broadcaster(self) -> Broadcaster | InProcessBroadcaster:
        """Sends the policy of the algorithm in use."""
        assert self._broadcaster is not None, "call `use` first"
        return self._broadcaster

    def use(self, algorithm: Algorithm) -> None:
        """Play and broadcast the policy of `algorithm` from now on. Waits until the engines have started."""
        self.collector.group = algorithm.group
        window = self.leader.call(self._window)
        if self._broadcaster is not None:
            self._broadcaster.close()
        # Random tokens of the whole vocabulary read many rows of the embedding and of the output head. They exceed
        # each window of local attention, up to a limit that keeps the proof cheap.
        local = longest_window(algorithm.policy_model.config)
        length = max(self.config.broadcast.probe_tokens, min(local + _BEYOND_WINDOW, _LONGEST_PROBE) if local else 0)
        probe = np.random.default_rng(self.args.seed).integers(
            0, len(self.tokenizer), min(length, window - 1), dtype=np.int32
        )
        self._broadcaster = self._make_broadcaster(algorithm, probe)

    def _make_broadcaster(self, algorithm: Algorithm, probe: np.ndarray) -> Broadcaster | InProcessBroadcaster:
        config, settings = self.config, self.config.broadcast
        positions = probe_positions(
            len(probe), sum(getattr(p, "ds_numel", p.numel()) for p in algorithm.policy_model.parameters())
        )

        def logprobs(tokens: np.ndarray) -> np.ndarray:
            return sequence_logprobs(algorithm.policy, tokens, algorithm.policy.device)

        if self.args.mode == "inline":
            source = OwnWeights(algorithm.policy_model)
            return InProcessBroadcaster(source, self.args.rollouts, logprobs, probe, positions, settings.tolerance)
        from learner.broadcast.broadcaster import Broadcaster  # late: imports vLLM, which an inline run does without
        from learner.broadcast.policy_source import PolicySource

        return Broadcaster(
            # Engines that compute in bfloat16 round the weights in any case.
            source=PolicySource(algorithm.policy_model, DTYPES[config.dtype] if config.dtype != "float32" else None),
            rollouts=self.args.rollouts,
            backend=settings.backend,
            rank=dist.get_rank(),
            timeout_s=settings.timeout_s,
            logprobs_fn=logprobs,
            probe_tokens=probe,
            positions=positions,
            tolerance=settings.tolerance,
            tls=self.args.tls,
        )

    def _window(self) -> int:
        self.args.rollouts.ready(self.config.timeout_s)
        return self.args.rollouts.window()

    def take_over(self) -> None:
        """Continue in place of ranks that died. Called on every rank, before anything plays.

        The pool and replay have gone on since the checkpoint, and no version or seed that they know may stand for
        another policy or episode. So the counters go on from theirs, and replay keeps what it has.
        """
        args, state = self.args, self.state
        recovery = self.leader.call(args.rollouts.recover)
        before = TrainerState.read(args.engines_resume) if args.engines_resume else TrainerState()
        state.version = max(state.version, recovery.version)
        state.next_seed = max(state.next_seed, recovery.next_seed)
        state.episodes = before.episodes + recovery.episodes
        state.turns = before.turns + recovery.turns
        self.records.restarted(args.restarts)

    def match_engines(self) -> None:
        """Prove the weights that the engines have loaded, or, for ranks that have taken over, send those of the
        checkpoint. Called on every rank."""
        if self.args.restarts:
            self.broadcast()
            self.settle()
        else:
            self.prove()

    def broadcast(self) -> None:
        """Send the weights as the next policy version. Called on every rank.

        The engines play on at once, and are proved meanwhile. `settle` waits for the proof; nothing may train on what
        they play, report it or keep it before.
        """
        self.state.version += 1
        self._send()

    def settle(self) -> None:
        """Wait until the last broadcast, if there was one, is proved. Called on every rank.

        Raises BroadcastProofError if it is not, and records that what was played since is unproved.
        """
        if self._broadcaster is None:
            return
        started = time.monotonic()
        try:
            gap = self.broadcaster.settle()
        except BroadcastProofError as error:
            raise self._unproved(error) from error
        if gap is not None:
            sender, seconds = self.broadcaster, self._sent_s + time.monotonic() - started
            self.records.broadcast(seconds, sender.parts, sender.attempts)
            self._proved(gap)

    def prove(self) -> None:
        """Prove that the engines compute the learner's function, with the weights that both have loaded.

        Called on every rank. Without it, a difference would show only at the end of the first cycle.
        """
        self._proved(self.broadcaster.prove(self.state.version))

    def _send(self) -> None:
        """Send the weights under the current version."""
        started = time.monotonic()
        self.broadcaster.send(self.state.version)
        self._sent_s, self._sent_episodes = time.monotonic() - started, self.state.episodes
        self.records.sent(self.state.version)

    def _rebroadcast(self) -> None:
        """Send the weights again, to engines that have restarted, and prove them at once."""
        self.settle()
        self._send()
        self.settle()

    def _proved(self, gap: float) -> None:
        self.proof_gap = gap
        self.state.proof_max_gap = max(self.state.proof_max_gap, gap)
        self.records.proof(gap)

    def _unproved(self, error: BroadcastProofError) -> BroadcastProofError:
        """Record that no proof stands behind the current version, and return the error that ends the run."""
        played = self.state.episodes - self._sent_episodes
        self.records.publish("unproved", cycle=self.state.cycle, version=self.state.version, episodes=played)
        return BroadcastProofError(
            f"{error}. What was played since under policy version {self.state.version} is unproved ({played} episodes "
            "of this cycle, and those in flight); `archer train --resume` continues from the last checkpoint without it"
        )

    def evaluate(self, name: str, algorithm: Algorithm) -> None:
        """Evaluate the policy of `algorithm`, which the engines hold, and keep it in `best/` if it is the best so far.

        The mean return decides, and of two equal ones the earlier. Called on every rank. Raises CheckpointError if the
        policy cannot be written.
        """
        self.settle()
        with self.records.phase("evaluation"):
            report = self.collector.evaluate(name)
        if report is None or not self.args.keep_best:
            return
        evaluation = evaluation_columns(name, self.state.episodes, report) | {"cycle": self.state.cycle}
        mean = checkpoint_folders.mean_return(evaluation)
        if mean <= self._best_return:
            return
        self._best_return = mean
        folder = self.args.run_dir / "best"
        with self._writing(f"the best policy so far, of the evaluation {name},", folder):
            partial = self.leader.call(lambda: checkpoint_folders.begin(folder, self.state.cycle))
            algorithm.save_chooser(partial)
            checkpoints.export_policy(
                algorithm.policy_model, self.broadcaster.source, self.tokenizer, partial / "policy"
            )
            self.leader.call(lambda: checkpoint_folders.commit_best(partial, evaluation))

    def _recall_best(self) -> float:
        """Return the mean return of the policy in `best/`, -inf if there is none. A run from the start deletes it."""
        if self.args.resume is None:
            shutil.rmtree(self.args.run_dir / "best", ignore_errors=True)
        found = checkpoint_folders.best_policy(self.args.run_dir)
        return -math.inf if found is None else checkpoint_folders.mean_return(found[1])

    @contextmanager
    def _writing(self, what: str, folder: Path) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError if the disk is full
            raise CheckpointError(
                f"{what} could not be written to {folder}: {error}. Free some space, then continue from the previous "
                "checkpoint with `archer train --resume`"
            ) from error

    def save(self, algorithm: Algorithm, swept: Iterable[str]) -> None:
        """Write a checkpoint; `swept` are the episodes that sweeps took. Called on every rank.

        Raises CheckpointError if it cannot be written; earlier checkpoints are unchanged.
        """
        self.settle()
        self.records.publish("phase", cycle=self.state.cycle, phase="checkpoint")
        folder = self.args.run_dir / "checkpoints"
        what = f"the checkpoint of cycle {self.state.cycle}"
        with self._writing(what, folder), self.records.phase("checkpoint"):
            self._write(folder, algorithm, swept)

    def _write(self, folder: Path, algorithm: Algorithm, swept: Iterable[str]) -> None:
        started = time.monotonic()
        partial = self.leader.call(lambda: checkpoint_folders.begin(folder, self.state.cycle))
        algorithm.save(partial)
        checkpoints.save_random_streams(partial)
        source = self.broadcaster.source
        checkpoints.export_policy(algorithm.policy_model, source, self.tokenizer, partial / "policy")
        if self.config.lora is not None and self.base is not None:
            checkpoints.export_adapter(source.only("adapter"), partial / "adapter", self.config.lora, self.base)

        def finish() -> None:
            self.args.replay.checkpoint(partial / "replay")
            self.state.replay_client = self.args.replay.state_dict()
            self.state.swept = sorted(swept)
            self.state.wall_seconds = self.records.wall_seconds
            self.state.processor_seconds = self.records.processor_seconds
            self.state.write(partial)
            checkpoint_folders.write_fixed(partial, self.args.fixed)
            path = checkpoint_folders.commit(partial, self.args.checkpoint_keep, self.args.engines_resume)
            self.records.checkpoint(path, time.monotonic() - started, asdict(self.state))

        self.leader.call(finish)
