"""What the run passes to each learner rank. Imports no torch, so that the driver can build it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from buffer.config import FlightTls
from buffer.telemetry.endpoint import Exposure
from learner.config import LearnerConfig
from learner.history.config import HistoryConfig
from learner.protocols import ExactActions, Publisher, RolloutService, Scorer

if TYPE_CHECKING:
    from buffer.client.local_client import LocalClient
    from buffer.client.ray_client import ReplayClient


@dataclass
class TrainArgs:
    """The arguments of the training function, pickled for each rank.

    Attributes:
        algorithm: the algorithm of the cycles, after cloning.
        model: folder or name of the policy's model; on resume that of the checkpoint's policy.
        start_model: the value of `model` when the run began.
        cycles: number of cycles, with the offline ones.
        offline_cycles: number of first cycles that play no episodes and learn from replay.
        max_staleness: in async mode, the number of policy versions by which an episode may be behind when it starts.
        temperature: sampling temperature of the engines.
        demonstrations: file of the episodes to clone.
        keep_best: whether the policy of the best evaluation is kept in `best/`.
        resume: checkpoint to resume from.
        engines_resume: checkpoint whose policy the engines load when they start; it is kept while the run lasts.
        restarts: times that the ranks have restarted within this run of the driver.
        demonstrations_in_replay: whether replay holds episodes that no policy wrote.
        scorer: the actor that chooses actions by the critic, for algorithms that play by it.
        pass_gap: the largest gap, in nats, of the proof of the learner's passes; None if there was none.
        exact: the exact values of the environment at the critic's discount; None if it cannot be solved.
        history: what is kept in the run folder for people.
        fixed: settings of the run that its checkpoints fix, by the path of the field; each checkpoint records them.
        exposure: where the metrics endpoints of the ranks listen.
        tls: TLS of the stream of weights to engines on other hosts; None for none.
    """

    algorithm: str
    learner: LearnerConfig
    run_dir: Path
    model: str
    start_model: str
    seed: int
    mode: Literal["sync", "async", "inline"]
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
    replay: ReplayClient | LocalClient
    rollouts: RolloutService
    board: Publisher
    demonstrations: Path
    keep_best: bool = True
    resume: Path | None = None
    engines_resume: Path | None = None
    restarts: int = 0
    scorer: Scorer | None = None
    exact: ExactActions | None = None
    pass_gap: float | None = None
    demonstrations_in_replay: bool = False
    history: HistoryConfig = field(default_factory=HistoryConfig)
    fixed: dict[str, Any] = field(default_factory=dict)
    exposure: Exposure = field(default_factory=Exposure)
    tls: FlightTls | None = None
