"""What the trainer knows of an algorithm: its phases, one step, and what to save. Nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from transformers import PreTrainedModel

from learner.engine.engines import Engine
from learner.passes.rows import Row

if TYPE_CHECKING:
    from learner.algorithms.setup import Setup

MicroBatches = Sequence[Sequence[Row]]


@dataclass(frozen=True)
class Phase:
    """A number of steps of one kind.

    Attributes:
        name: "clone", "critic" or "actor"; the prefix of its metrics.
        steps: batches drawn; a sweep has as many as its episodes fill.
        batch: samples per batch, in units of `unit`.
        epochs: passes over the phase's batches.
        fresh: fresh actions per state, 0 for none.
        logprobs: whether its step reads the log-probabilities under which fresh actions were sampled.
        max_staleness: only episodes at most this many policy versions old; None takes all.
        best: only this share of the episodes, the best by return; None takes all.
        sampler: how draws are made; prioritised ones are weighted, and their TD errors go back to replay.
        importance: exponent of the weights that undo the preference of prioritised draws.
        sweep: each episode once an epoch, in random order, instead of draws with replacement.
        group: episodes of one environment seed that a sweep takes together.
    """

    name: Literal["clone", "critic", "actor"]
    steps: int
    batch: int
    unit: Literal["turn", "episode"]
    epochs: int = 1
    fresh: int = 0
    logprobs: bool = False
    max_staleness: int | None = None
    best: float | None = None
    sampler: Literal["uniform", "prioritised"] = "uniform"
    importance: float = 0.0
    sweep: bool = False
    group: int = 1


@dataclass(frozen=True)
class StepResult:
    """What came of one step.

    Attributes:
        metrics: already summed over ranks.
        stop: whether the phase should end.
        td_errors: of prioritised draws, for each of this rank's micro-batches |Q(s, a) - target|, float32 [samples].
    """

    metrics: dict[str, float]
    stop: bool = False
    td_errors: Sequence[np.ndarray] = ()


class Algorithm(ABC):
    """A way to learn. All methods are called on every rank, in the same order.

    Attributes:
        policy: the engine of the policy.
        group: episodes to play of each environment seed.
    """

    policy: Engine
    group: int = 1

    @classmethod
    @abstractmethod
    def build(cls, setup: Setup) -> Self:
        """Made from a run's models and settings, ready for its first step or for `load`."""

    @property
    @abstractmethod
    def policy_model(self) -> PreTrainedModel:
        """The Hugging Face model inside `policy`, whose weights are broadcast and exported."""

    @abstractmethod
    def phases(self, cycle: int) -> Sequence[Phase]:
        """The phases of cycle `cycle`, counted from 0."""

    def begin(self, phase: Phase, batches: Sequence[MicroBatches]) -> None:  # noqa: B027
        """A sweep begins: what must be computed of all its rows under the policy as it is.

        Args:
            batches: this rank's rows of every batch of the sweep.
        """

    @abstractmethod
    def step(self, phase: Phase, micro_batches: MicroBatches, samples: int, version: int) -> StepResult:
        """One optimizer step.

        Args:
            micro_batches: this rank's rows.
            samples: number of samples (turns) of the global batch.
            version: the policy version that the engines hold.
        """

    def finish_cycle(self, cycle: int) -> None:  # noqa: B027
        """All phases of cycle `cycle` are done, and nothing is played yet: hand out what isn't the policy's."""

    def save(self, directory: Path) -> None:
        """Write weights and optimizers below `directory`."""
        self.policy.save(str(directory), "actor")

    def load(self, directory: Path) -> None:
        """Read what `save` wrote."""
        self.policy.load(str(directory), "actor")
