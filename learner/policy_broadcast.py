"""The broadcasts of a run: which policy is sent, and under which version."""

from __future__ import annotations

import time

import numpy as np
import torch.distributed as dist

from learner.algorithms.base import Algorithm
from learner.broadcast.broadcaster import Broadcaster
from learner.broadcast.policy_source import PolicySource
from learner.engine.checkpoints import TrainerState
from learner.models.policy import sequence_logprobs
from learner.passes.precision import DTYPES
from learner.records import Records
from learner.train_args import TrainArgs


class PolicyBroadcast:
    """Broadcasts the policy of the algorithm given to `use`. Called on every rank.

    Args:
        vocabulary: number of tokens of the tokenizer, from which the proof's sequence is drawn.
    """

    def __init__(self, args: TrainArgs, state: TrainerState, records: Records, vocabulary: int) -> None:
        self._args = args
        self._state = state
        self._records = records
        self._vocabulary = vocabulary
        self._broadcaster: Broadcaster | None = None

    def use(self, algorithm: Algorithm, window: int) -> None:
        """Broadcast the policy of `algorithm` from now on. `window` is the engines' context length."""
        config, settings = self._args.learner, self._args.learner.broadcast
        if self._broadcaster is not None:
            self._broadcaster.close()
        generator = np.random.default_rng(self._args.seed)
        length = min(settings.probe_tokens, window - 1)
        self._broadcaster = Broadcaster(
            # Engines that compute in bfloat16 round the weights in any case.
            source=PolicySource(algorithm.policy_model, DTYPES[config.dtype] if config.dtype != "float32" else None),
            rollouts=self._args.rollouts,
            backend=settings.backend,
            rank=dist.get_rank(),
            timeout_s=settings.timeout_s,
            logprobs_fn=lambda tokens: sequence_logprobs(algorithm.policy, tokens, algorithm.policy.device),
            # Random tokens of the whole vocabulary read many rows of the embedding and of the output head.
            probe_tokens=generator.integers(0, self._vocabulary, length, dtype=np.int32),
            tolerance=settings.tolerance,
        )

    @property
    def source(self) -> PolicySource:
        """The weights of the policy in use."""
        assert self._broadcaster is not None
        return self._broadcaster.source

    def send(self) -> float:
        """Send the weights as the next policy version and return the largest gap of the proof."""
        self._state.version += 1
        return self.send_again()

    def send_again(self) -> float:
        """Send the weights under the current version, to engines that have restarted."""
        assert self._broadcaster is not None
        started = time.monotonic()
        gap = self._broadcaster.broadcast(self._state.version)
        self._state.proof_max_gap = max(self._state.proof_max_gap, gap)
        self._records.broadcast(self._state.version, time.monotonic() - started, gap)
        return gap
