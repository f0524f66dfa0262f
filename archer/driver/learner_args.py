"""The arguments of the learner, from the configuration and the parts of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from archer.config.models import RunConfig
from archer.driver.exact_actions import exact_actions
from archer.driver.fixed_settings import fixed_settings
from archer.driver.model import start_path
from archer.driver.run_folder import RunFolder
from archer.driver.value_support import with_support
from buffer.telemetry.endpoint import Exposure
from learner.protocols import Publisher, RolloutService, Scorer
from learner.train_args import TrainArgs

if TYPE_CHECKING:
    from buffer.client.local_client import LocalClient
    from buffer.client.ray_client import ReplayClient


def train_args(
    config: RunConfig,
    folder: RunFolder,
    *,
    model: str,
    resume: Path | None,
    replay: ReplayClient | LocalClient,
    rollouts: RolloutService,
    board: Publisher,
    pass_gap: float,
    exposure: Exposure | None = None,
    scorer: Scorer | None = None,
) -> TrainArgs:
    """Return the arguments of each rank; those of the same names are passed on."""
    learner = with_support(config)
    broadcast = learner.broadcast.model_copy(update={"backend": config.broadcast_backend})
    return TrainArgs(
        algorithm=config.algorithm,
        learner=learner.model_copy(update={"broadcast": broadcast}),
        run_dir=folder.path,
        model=model,
        start_model=start_path(config.model, folder.model),
        seed=config.seed,
        mode=config.mode,
        cycles=config.cycles,
        offline_cycles=config.offline_cycles,
        episodes_per_cycle=config.episodes_per_cycle,
        max_staleness=config.max_staleness,
        evaluation_episodes=config.evaluation.episodes,
        evaluation_every=config.evaluation.every,
        evaluation_greedy=config.evaluation.greedy,
        checkpoint_every=config.checkpoint.every,
        checkpoint_keep=config.checkpoint.keep,
        keep_best=config.checkpoint.best,
        temperature=config.rollout.sampling.temperature,
        replay=replay,
        rollouts=rollouts,
        board=board,
        demonstrations=folder.demonstrations,
        resume=resume,
        engines_resume=resume,
        scorer=scorer,
        pass_gap=pass_gap,
        demonstrations_in_replay=config.demonstrations.keep_in_replay,
        exact=exact_actions(config, model),
        history=config.history,
        fixed=fixed_settings(config),
        exposure=exposure or Exposure(),
        tls=config.replay.tls,
    )
