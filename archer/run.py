"""A run on one page: cluster, board, replay, engines and learner, then the results.

All processes end with the run. The driver connects the parts, receives their events and writes the results. The run
folder has what must survive a kill: configuration, metrics.jsonl, the replay's log and the checkpoints.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.pool.client import PoolClient
from actors.pool.pool import start_pool
from actors.rollout.player import WorkerArgs
from archer.config.loading import dump_config
from archer.config.models import RunConfig
from archer.driver.board import BoardFollower, BoardPublisher, start_board
from archer.driver.cluster import cluster
from archer.driver.demonstrations import demonstration_batches
from archer.driver.elastic import elastic
from archer.driver.fixed_settings import require_fixed
from archer.driver.initial_policy import prepare_policy
from archer.driver.journal import Journal, read_state
from archer.driver.learner_args import train_args
from archer.driver.learner_job import train
from archer.driver.metrics import RunMetrics
from archer.driver.outcome import report, rewind
from archer.driver.passes import prove_passes
from archer.driver.progress import Event, Progress
from archer.driver.prometheus_folder import announce
from archer.driver.run_folder import RunFolder, latest_checkpoint
from archer.driver.targets import Targets, expected_processes
from archer.trackers.feed import TrackerFeed, track
from buffer.service import ReplayService
from buffer.telemetry.endpoint import Exposure, Process

if TYPE_CHECKING:
    from learner.critic_scorer import ActorScorer


def run(config: RunConfig, folder: RunFolder, *, resume: bool) -> dict[str, Any]:
    """Train as `config` describes, in `folder`, and return the summary that the run writes there.

    Raises RunError, or the base error of another room, if the run cannot continue. The folder then has every row,
    episode and checkpoint that was acknowledged.
    """
    started = time.monotonic()
    checkpoint = latest_checkpoint(folder.path) if resume else None
    changes = require_fixed(config, folder.path, checkpoint)
    state = read_state(folder) if checkpoint else {}
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(config.name, config.cycles))
        progress.message(f"run folder {folder.path}")
        if resume:
            rewind(folder, checkpoint, state, progress, changes)
        model, demonstrations = prepare_policy(config, folder, checkpoint, progress)
        passes = prove_passes(config, model)
        greedy, settings = config.evaluation.greedy, dump_config(config)
        journal = Journal(folder, progress, env=config.env.id, greedy=greedy, settings=settings)
        journal.handle(passes.event())
        tracked = stack.enter_context(track(config, folder.path, settings, state, progress.message))
        config = passes.settle(config)

        stack.enter_context(cluster(config))
        exposure = Exposure(config.metrics.host, announce(folder))
        metrics = RunMetrics(config, settings)
        targets = stack.enter_context(Targets(folder.targets_path, config.name, metrics, expected_processes(config)))
        own = Process("driver", "driver", exposure.serve(metrics.registry))
        targets.add_source("driver", lambda: [own])
        board = start_board(exposure)
        replay = _start_replay(config, folder, checkpoint, exposure)
        stack.callback(replay.stop)
        targets.add_source("replay", replay.processes)
        if checkpoint is None and config.demonstrations.keep_in_replay:
            replay.client().append_all(demonstration_batches(demonstrations), limited=False)
        scorer = _start_scorer(config, model, exposure)
        if scorer is not None:
            targets.add_source("scorer", scorer.processes)
        pool = _start_pool(config, model, replay, scorer, exposure, version=int(state.get("version", 0)))
        stack.callback(pool.shutdown)
        targets.add_source("pool", pool.processes)
        stack.callback(targets.clear)  # first of all at the end: the processes that it asks are about to end

        with BoardFollower(board, _to_all(journal, metrics, tracked)) as follower:
            targets.add_source("board", follower.processes)
            args = train_args(
                config,
                folder,
                model=model,
                resume=checkpoint,
                replay=replay.client(),
                rollouts=pool,
                board=BoardPublisher(board),
                pass_gap=passes.gap,
                exposure=exposure,
                scorer=scorer,
            )
            with folder.stoppable(progress.in_cycles), elastic(config, pool, _tell(targets, progress)):
                train(config, args, follower)
    return report(config, folder, float(state.get("wall_seconds", 0.0)) + time.monotonic() - started)


def _tell(targets: Targets, progress: Progress) -> Callable[[int, int], None]:
    """Return what shows a change of the number of rollout workers, and lets the metrics expect the new one."""

    def changed(before: int, after: int) -> None:
        targets.expect("rollout", after)
        progress.message(f"rollout workers: {before} -> {after} (rollout.workers follows the cluster)")

    return changed


def _to_all(journal: Journal, metrics: RunMetrics, tracked: TrackerFeed) -> Callable[[Event], None]:
    """Return what hands an event to the journal, to the driver's metrics and to the trackers."""

    def handle(event: Event) -> None:
        event = journal.handle(event)
        metrics.handle(event)
        tracked.handle(event)

    return handle


def _start_replay(config: RunConfig, folder: RunFolder, checkpoint: Path | None, exposure: Exposure) -> ReplayService:
    if checkpoint is None:
        # A run that was killed before its first checkpoint starts over, with an empty replay.
        shutil.rmtree(folder.replay, ignore_errors=True)
    restore = checkpoint / "replay" if checkpoint else False
    return ReplayService.start(
        config.replay,
        directory=folder.replay,
        seed=config.seed,
        restore=restore,
        start_timeout_s=config.cluster.start_timeout_s,
        exposure=exposure,
    )


def _start_scorer(config: RunConfig, model: str, exposure: Exposure) -> ActorScorer | None:
    """Start the critic that chooses among candidate actions, if the algorithm plays by its critic."""
    if not config.algorithm_config.proposals():
        return None
    from learner.critic_scorer import ActorScorer, start_scorer  # late: only this algorithm needs torch in the driver

    return ActorScorer(start_scorer(config.learner, model, exposure=exposure), config.learner.timeout_s)


def _start_pool(
    config: RunConfig,
    model: str,
    replay: ReplayService,
    scorer: ActorScorer | None,
    exposure: Exposure,
    *,
    version: int,
) -> PoolClient:
    """Start the rollout workers without waiting: their engines load while the learner does, and the learner waits for
    them before it first needs them."""
    rollout = config.rollout.model_copy(deep=True)
    backend = config.broadcast_backend
    rollout.engine.weight_transfer = backend if backend in ("nccl", "ipc") else "shm"
    arguments = WorkerArgs(
        config=rollout,
        model=model,
        env_id=config.env.id,
        env_kwargs=config.env.kwargs,
        replay=replay.client(seed=config.seed + 1),
        run=config.name,
        seed=config.seed,
        version=version,
        scorer=None if scorer is None else scorer.actor,
        candidates=config.algorithm_config.proposals(),
        room_timeout_s=config.cluster.start_timeout_s,
        exposure=exposure,
    )
    return start_pool(arguments, wait=False)
