"""The interface between the trainer and an algorithm: its phases, its optimizer step, and its checkpoint.

`learner.algorithm_config` declares the names and classes of the algorithms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from learner.algorithms.phases import Phase
from learner.algorithms.setup import Setup
from learner.engine.engines import Engine
from learner.history.values import TurnValues
from learner.passes.rows import Row
from learner.protocols import ExactActions

MicroBatches = Sequence[Sequence[Row]]


@dataclass(frozen=True)
class StepResult:
    """The result of one step.

    Attributes:
        metrics: summed over ranks.
        stop: whether the phase ends with this step.
        td_errors: for prioritised draws, |Q(s, a) - target| of each of this rank's micro-batches, float32 [samples].
        gaps: `learner.engine.sums.Sums.gap_counts` of the step's tokens, where the algorithm compares them with those
            of the engines.
    """

    metrics: dict[str, float]
    stop: bool = False
    td_errors: Sequence[np.ndarray] = ()
    gaps: np.ndarray | None = None


class Algorithm(ABC):
    """A learning algorithm. All methods are called on every rank, in the same order.

    Attributes:
        policy: the engine of the policy, a `learner.models.policy.Policy`.
        group: number of episodes that are played of each environment seed.
        has_values: whether `diagnose` returns figures.
        fresh_to_diagnose: number of fresh actions at each state that `diagnose` reads.
        used: the values that its steps use, for people; None if it has none.
    """

    policy: Engine
    group: int = 1
    has_values: bool = False
    fresh_to_diagnose: int = 0
    used: TurnValues | None = None

    @abstractmethod
    def __init__(self, setup: Setup) -> None:
        """Load the models of a run with its settings, ready for the first step or for `load`."""

    @classmethod
    def build(cls, setup: Setup) -> Algorithm:
        """Return the algorithm of a run: this class, or a subclass that fits the run."""
        return cls(setup)

    @property
    def policy_model(self) -> PreTrainedModel:
        """The Hugging Face model inside `policy`, whose weights are broadcast and exported."""
        policy: Any = self.policy.module
        return policy.model

    @abstractmethod
    def phases(self, cycle: int) -> Sequence[Phase]:
        """Return the phases of cycle `cycle`, counted from 0."""

    def begin(self, batches: Sequence[MicroBatches]) -> None:  # noqa: B027
        """Compute what depends on all of a sweep under the unchanged policy, given this rank's rows of its batches."""

    @abstractmethod
    def step(self, phase: Phase, micro_batches: MicroBatches, samples: int, version: int) -> StepResult:
        """Take one optimizer step.

        Args:
            micro_batches: this rank's rows.
            samples: number of samples (turns) of the global batch.
            version: the policy version of the engines.
        """

    def diagnose(self, micro_batches: MicroBatches, exact: ExactActions | None) -> dict[str, float]:
        """Return figures of the values that the algorithm has learnt, on episodes that it has not trained on.

        Args:
            micro_batches: this rank's rows, each with all turns of its episode. Every rank has as many micro-batches.
            exact: the exact values of the environment, if it can be solved.
        """
        return {}

    def revalue(self, micro_batches: MicroBatches) -> TurnValues | None:
        """Return the values that the critic gives the turns of whole episodes now; None without an utterance critic.

        Args:
            micro_batches: as for `diagnose`, with as many fresh actions.
        """
        return None

    def finish_cycle(self, cycle: int) -> None:  # noqa: B027
        """Hand out weights other than the policy's, after the phases of `cycle` and before the next episode."""

    def save_chooser(self, directory: Path) -> None:  # noqa: B027
        """Write into `directory` what chooses among the policy's actions at play, if anything does."""

    def save(self, directory: Path) -> None:
        """Write weights and optimizers into `directory`."""
        self.policy.save(str(directory), "actor")

    def load(self, directory: Path) -> None:
        """Read what `save` wrote."""
        self.policy.load(str(directory), "actor")


def build(name: str, setup: Setup) -> Algorithm:
    """Return the algorithm `name`, ready for its first step or for `load`."""
    module, _, attribute = setup.config.section_of(name).implementation.partition(":")
    algorithm: type[Algorithm] = getattr(import_module(module), attribute)
    return algorithm.build(setup)
