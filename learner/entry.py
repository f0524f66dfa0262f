"""The door to the learner: what a rank gets from the run, and what it runs.

Apart from `learner.train`, so that who only hands it on (the driver, Ray Train's controller) imports neither torch nor
DeepSpeed nor vLLM.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from learner.config import AlgorithmName, LearnerConfig
from learner.protocols import Publisher, ReplaySource, RolloutService, Scorer

CRITIC_FILE = "critic.pt"
"""What a checkpoint of a run that plays by its critic holds beside the policy: the critic's weights."""


@dataclass
class TrainArgs:
    """All that the training function gets from the run; pickled to each rank.

    Attributes:
        algorithm: what learns after cloning.
        model: folder or name of the policy to start from; on resume, of the checkpoint's policy.
        start_model: what `model` was when the run began.
        offline_cycles: first cycles that play nothing and learn from what replay holds.
        temperature: at which the engines sample.
        version: the policy version that the engines hold at the start.
        max_staleness: in async mode, versions by which an episode's start may lag behind.
        demonstrations: file of episodes to clone.
        resume: checkpoint to go on from.
        scorer: the actor through which a critic picks what is played, for the algorithms that play so.
    """

    algorithm: AlgorithmName
    learner: LearnerConfig
    run_dir: Path
    model: str
    start_model: str
    seed: int
    mode: Literal["sync", "async"]
    cycles: int
    offline_cycles: int
    episodes_per_cycle: int
    max_staleness: int
    evaluation_episodes: int
    evaluation_every: int
    evaluation_greedy: bool
    checkpoint_every: int
    checkpoint_keep: int
    temperature: float
    replay: ReplaySource
    rollouts: RolloutService
    board: Publisher
    demonstrations: Path
    resume: Path | None = None
    scorer: Scorer | None = None


def run_rank(settings: dict[str, TrainArgs]) -> None:
    """What Ray Train runs on each rank; it hands over a dict, of which `args` is ours."""
    from learner.train import train_function

    train_function(settings["args"])
