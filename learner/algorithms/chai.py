"""CHAI: the policy stays the cloned one, and a critic chooses among its proposals (Verma et al., 2022).

Invariants: no step changes the policy. V(s) is the target network's largest Q over the same number of fresh actions as
the scorer chooses from, so that the critic evaluates the behaviour that it causes. The scorer gets the critic after
each cycle.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from learner.algorithms.base import MicroBatches, StepResult
from learner.algorithms.phases import Phase
from learner.algorithms.setup import Setup
from learner.algorithms.utterance_critic import OverActorCritic, critic_phases
from learner.engine.checkpoint_folders import CRITIC_FILE
from learner.errors import LearnerError
from learner.losses import best_of_loss


class Chai(OverActorCritic):
    """Critic phases only. `finish_cycle` sends the critic to the scorer, which chooses the actions that are played."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        if setup.scorer is None:
            raise LearnerError("chai plays through a scorer, and the run passed none")
        self._scorer = setup.scorer

    def phases(self, cycle: int) -> Sequence[Phase]:
        return critic_phases(self.config.critic, cycle, fresh=self.config.chai.candidates)

    def step(self, phase: Phase, micro_batches: MicroBatches, samples: int, version: int) -> StepResult:
        return self.engines.critic_step(micro_batches, samples, lambda v, bar: best_of_loss(v, bar["q_fresh"]), "fresh")

    def finish_cycle(self, cycle: int) -> None:
        state = self.engines.critic_state()
        if dist.get_rank() == 0:
            self._scorer(state, cycle)

    def save(self, directory: Path) -> None:
        super().save(directory)
        self.save_chooser(directory)

    def save_chooser(self, directory: Path) -> None:
        state = self.engines.critic_state()
        if dist.get_rank() == 0:
            # The scorer of an evaluation loads this file, so that the policy plays as it did in the run.
            torch.save(state, directory / CRITIC_FILE)
