"""The learner: algorithms that train a policy on episodes, and the broadcast of its weights to the engines.

`learner.stages` is the training function of a rank and `learner.train` the trainer; start reading there, then in
`learner.algorithms`. `learner.config` and `learner.algorithm_config` are the settings, `learner.losses` the losses with
their equations. Episodes come from `buffer`; this room does not import `actors`, whose rollouts reach it as
`learner.protocols.RolloutService`.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "Algorithm": "learner.algorithms.base",
    "StepResult": "learner.algorithms.base",
    "Draws": "learner.algorithms.phases",
    "Sweep": "learner.algorithms.phases",
    "AlgorithmConfig": "learner.algorithm_config",
    "LearnerConfig": "learner.config",
    "TrainArgs": "learner.train_args",
    "run_rank": "learner.entry",
    "LearnerError": "learner.errors",
    "AdapterError": "learner.errors",
    "CheckpointError": "learner.errors",
    "NonFiniteLossError": "learner.errors",
    "WaitTimeoutError": "learner.errors",
}
"""The module of each public name, imported at its first use."""
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
