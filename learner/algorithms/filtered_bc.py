"""Filtered behavioural cloning: clone the share of replay's episodes with the highest return (a baseline of the paper).

Online, the policy's own episodes raise that share; offline, the same steps run on a fixed set of episodes.
"""

from __future__ import annotations

from collections.abc import Sequence

from learner.algorithms.bc import Cloning
from learner.algorithms.phases import Draws, Phase
from learner.algorithms.setup import Setup


class FilteredCloning(Cloning):
    """One phase of likelihood steps on the best episodes in each cycle."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup, lr=setup.config.filtered_bc.lr)

    def phases(self, cycle: int) -> Sequence[Phase]:
        settings = self.config.filtered_bc
        return [Draws("actor", settings.steps_per_cycle, settings.batch, best=settings.best)]
