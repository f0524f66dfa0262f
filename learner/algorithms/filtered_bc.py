"""Filtered behavioural cloning: clone the best share of all episodes that replay holds, a baseline of the paper.

Online the policy's own episodes come in and the best get better; offline the same steps run on what is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from learner.algorithms.base import Phase
from learner.algorithms.bc import Cloning
from learner.algorithms.setup import Setup


class FilteredCloning(Cloning):
    """One phase of likelihood steps on the best episodes in each cycle."""

    @classmethod
    def build(cls, setup: Setup) -> Self:
        lr = setup.config.filtered_bc.lr
        return cls(setup.policy_model(), setup.pad_token_id, setup.config, setup.temperature, lr=lr)

    def phases(self, cycle: int) -> Sequence[Phase]:
        settings = self.config.filtered_bc
        return [Phase("actor", settings.steps_per_cycle, settings.batch, "episode", best=settings.best)]
