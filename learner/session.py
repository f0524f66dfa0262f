"""What all stages of a run share on one rank."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from transformers import AutoTokenizer

from learner.algorithms.base import Algorithm
from learner.collector import Collector, first_seed
from learner.engine import checkpoint_folders, checkpoints
from learner.engine.checkpoints import TrainerState
from learner.errors import CheckpointError
from learner.models.adapter_files import Base
from learner.policy_broadcast import PolicyBroadcast
from learner.ranks import Leader
from learner.records import Records
from learner.train_args import TrainArgs


class Session:
    """The state of a run on one rank, its records, its collector of episodes, and its broadcasts and checkpoints.

    Attributes:
        base: identity of the frozen model under the adapters, if adapters are trained.
    """

    def __init__(self, args: TrainArgs) -> None:
        self.args = args
        self.config = args.learner
        self.state = TrainerState.read(args.resume) if args.resume else TrainerState(next_seed=first_seed(args.seed))
        self.tokenizer = AutoTokenizer.from_pretrained(args.model)
        self.records = Records(args.board, self.state.wall_seconds)
        self.broadcast = PolicyBroadcast(args, self.state, self.records, len(self.tokenizer))
        self.leader = Leader(args.rollouts.stale_error, self.broadcast.send_again)
        self.collector = Collector(args, self.state, self.leader, self.records)
        self.base: Base | None = None

    def use(self, algorithm: Algorithm) -> None:
        """Play and broadcast the policy of `algorithm` from now on. Waits until the engines have started."""
        self.collector.group = algorithm.group
        self.broadcast.use(algorithm, self.leader.call(self._window))

    def _window(self) -> int:
        self.args.rollouts.ready(self.config.timeout_s)
        return self.args.rollouts.window()

    def save(self, algorithm: Algorithm, swept: Iterable[str]) -> None:
        """Write a checkpoint; `swept` are the episodes that sweeps took. Called on every rank.

        Raises CheckpointError if it cannot be written; earlier checkpoints are unchanged.
        """
        self.records.publish("phase", cycle=self.state.cycle, phase="checkpoint")
        folder = self.args.run_dir / "checkpoints"
        try:
            self._write(folder, algorithm, swept)
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError if the disk is full
            raise CheckpointError(
                f"the checkpoint of cycle {self.state.cycle} could not be written to {folder}: {error}. Free some "
                "space, then continue from the previous checkpoint with `archer train --resume`"
            ) from error

    def _write(self, folder: Path, algorithm: Algorithm, swept: Iterable[str]) -> None:
        partial = self.leader.call(lambda: checkpoint_folders.begin(folder, self.state.cycle))
        algorithm.save(partial)
        checkpoints.save_random_streams(partial)
        source = self.broadcast.source
        checkpoints.export_policy(algorithm.policy_model, source, self.tokenizer, partial / "policy")
        if self.config.lora is not None and self.base is not None:
            checkpoints.export_adapter(source.only("adapter"), partial / "adapter", self.config.lora, self.base)

        def finish() -> None:
            self.args.replay.checkpoint(partial / "replay")
            self.state.replay_client = self.args.replay.state_dict()
            self.state.swept = sorted(swept)
            self.state.wall_seconds = self.records.wall_seconds
            self.state.write(partial)
            path = checkpoint_folders.commit(partial, self.args.checkpoint_keep)
            self.records.publish("checkpoint", path=str(path), state=asdict(self.state))

        self.leader.call(finish)
