"""The names of the algorithms."""

from __future__ import annotations

from learner.algorithms.archer import Archer
from learner.algorithms.archer_offline import ArcherOffline, OfflineToOnline
from learner.algorithms.base import Algorithm
from learner.algorithms.bc import BehaviourCloning
from learner.algorithms.chai import Chai
from learner.algorithms.filtered_bc import FilteredCloning
from learner.algorithms.grpo import Grpo
from learner.algorithms.ppo import Ppo
from learner.algorithms.reinforce import Reinforce
from learner.algorithms.setup import Setup
from learner.config import AlgorithmName

ALGORITHMS: dict[AlgorithmName, type[Algorithm]] = {
    "archer": Archer,
    "archer_offline": ArcherOffline,
    "bc": BehaviourCloning,
    "chai": Chai,
    "filtered_bc": FilteredCloning,
    "grpo": Grpo,
    "ppo": Ppo,
    "reinforce": Reinforce,
}


def build(name: AlgorithmName, setup: Setup) -> Algorithm:
    """The algorithm of that name, ready for its first step or for `load`."""
    if name == "archer" and setup.offline_cycles:
        return OfflineToOnline.build(setup)
    return ALGORITHMS[name].build(setup)
