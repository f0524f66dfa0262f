"""A run, on one page: cluster, board, model, replay, engines, learner; then what came of it.

Every process is real and ends with the run. The driver only wires, watches and writes; what must survive a kill is
in the run folder: the configuration, metrics.jsonl, the replay's log and the checkpoints.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.actor import ActorHandle
from rich.console import Console

from actors.pool.client import PoolClient
from actors.pool.pool import start_pool
from actors.rollout.worker import WorkerArgs
from archer.config.models import WITH_CRITIC, RunConfig
from archer.driver.board import BoardFollower, BoardPublisher, start_board
from archer.driver.cluster import cluster
from archer.driver.demonstrations import fitting, play_demonstrations, render, texts
from archer.driver.discovery import DiscoveryServer, Target
from archer.driver.journal import Journal, read_state
from archer.driver.learner_job import train
from archer.driver.model import build_tiny_model, check_critic, resolve_model, start_path
from archer.driver.progress import Progress, make_progress
from archer.driver.run_folder import RunFolder
from archer.errors import RunError
from archer.imports.conversations import read_imports
from archer.results.summary import learning_curve, print_summary, summarise
from buffer.episodes.schema import Episode, episodes_to_batch
from buffer.service import ReplayService
from learner.entry import TrainArgs
from learner.feeding.demonstrations import write_demonstrations

_APPENDED = 256
"""Demonstrations of one append."""


def run(config: RunConfig, folder: RunFolder, *, resume: bool) -> dict[str, Any]:
    """Train as `config` says, in `folder`, and return the summary that was written there.

    Raises RunError (or the error of another room) with a sentence where the run can't go on. Everything that was
    acknowledged is in the folder by then.
    """
    started = time.monotonic()
    checkpoint = folder.latest_checkpoint() if resume else None
    earlier = float(read_state(folder).get("wall_seconds", 0.0)) if checkpoint else 0.0
    with ExitStack() as stack:
        targets = _Targets()
        discovery = stack.enter_context(_discovery(config, targets))
        progress = stack.enter_context(make_progress(config.name, config.cycles))
        for line in _opening(folder, checkpoint, discovery.url, resume=resume):
            progress.handle({"kind": "message", "text": line})
        if resume:
            folder.rewind(int(read_state(folder).get("cycle", 0)))
        model, demonstrations = _policy(config, folder, checkpoint, progress)
        api_server = stack.enter_context(cluster(config))
        stack.callback(targets.clear)
        targets.board = board = start_board()
        targets.replay = replay = _start_replay(config, folder, checkpoint)
        stack.callback(replay.stop)
        if checkpoint is None and config.demonstrations.keep_in_replay:
            firsts = range(0, len(demonstrations), _APPENDED)
            batches = (episodes_to_batch(demonstrations[first : first + _APPENDED]) for first in firsts)
            replay.client().append_all(batches, limited=False)
        scorer = _start_scorer(config, model)
        targets.pool = pool = _start_pool(config, model, replay, scorer, read_state(folder) if checkpoint else {})
        stack.callback(pool.shutdown)
        journal = Journal(folder, progress, env=config.env.id, greedy=config.evaluation.greedy)
        with BoardFollower(board, journal.handle) as follower:
            args = _train_args(config, folder, model, checkpoint, replay, pool, scorer, board)
            train(config.name, config.learner, args, folder.path, follower, api_server)
    return _close(config, folder, journal, earlier + time.monotonic() - started)


class _Targets:
    """Processes that serve metrics, asked anew at each request; parts of the run come up one after the other."""

    board: ActorHandle | None = None
    replay: ReplayService | None = None
    pool: PoolClient | None = None

    def clear(self) -> None:
        """Ask nobody any more: before the cluster is left."""
        self.board = self.replay = self.pool = None

    def sources(self) -> dict[str, Callable[[], list[Target]]]:
        return {
            "board": lambda: ray.get(self.board.targets.remote(), timeout=5.0) if self.board else [],
            "replay": lambda: self.replay.metrics_targets() if self.replay else [],
            "pool": lambda: self.pool.metrics_targets() if self.pool else [],
        }


def _discovery(config: RunConfig, targets: _Targets) -> DiscoveryServer:
    return DiscoveryServer(
        config.metrics.host,
        config.metrics.port,
        run=config.name,
        sources=targets.sources(),
        source_errors=(OSError, TimeoutError, ray.exceptions.RayError),
    )


def _opening(folder: RunFolder, checkpoint: Path | None, metrics_url: str, *, resume: bool) -> list[str]:
    """What a person is told first: where things are, and from where a run goes on."""
    lines = [f"run folder {folder.path}, metrics at {metrics_url}"]
    if checkpoint is not None:
        lines.append(f"resuming from {checkpoint} (cycle {read_state(folder).get('cycle', 0)})")
    elif resume:
        lines.append(f"{folder.path} has no whole checkpoint yet: starting from the beginning")
    return lines


def _policy(
    config: RunConfig, folder: RunFolder, checkpoint: Path | None, progress: Progress
) -> tuple[str, list[Episode]]:
    """The model to start from, and the demonstrations in its tokens (which are written into the run folder)."""
    if checkpoint is not None:
        return str(checkpoint / "policy"), []
    imports = read_imports(config.demonstrations.files, env=config.env.id)
    demonstrations = (play_demonstrations(config) if config.demonstrations.episodes else []) + imports
    window: int | None
    if config.model.build is not None:
        if not folder.model.exists():
            build_tiny_model(texts(demonstrations), folder.model, config.model.build, seed=config.seed)
        model, window = str(folder.model), config.model.build.max_positions
    else:
        resolved = resolve_model(config.model)
        model, window = resolved.path, resolved.window
    if config.algorithm in WITH_CRITIC:
        check_critic(config.learner.critic, model)
    if not demonstrations:
        return model, []
    everything = render(demonstrations, model, config.rollout, imported=len(imports))
    window = config.rollout.engine.max_model_len or window
    episodes = fitting(everything, window, config.rollout.sampling.max_tokens)
    if len(episodes) < len(everything):
        left_out = len(everything) - len(episodes)
        text = f"left out {left_out} of {len(everything)} demonstrations: longer than the window of {window} tokens"
        if not episodes:
            raise RunError(f"{text}; raise the model's window or lower env.kwargs.max_turns")
        progress.handle({"kind": "message", "text": text})
    write_demonstrations(episodes, folder.demonstrations)
    return model, episodes


def _start_replay(config: RunConfig, folder: RunFolder, checkpoint: Path | None) -> ReplayService:
    if checkpoint is not None:
        restore: Path | bool = checkpoint / "replay"
    else:
        # A run that was killed before its first checkpoint starts over, and its replay with it.
        shutil.rmtree(folder.replay, ignore_errors=True)
        restore = False
    return ReplayService.start(config.replay, directory=folder.replay, seed=config.seed, restore=restore)


def _start_scorer(config: RunConfig, model: str) -> ActorHandle | None:
    """The critic at play, for the algorithm whose critic picks what is played."""
    if config.algorithm != "chai":
        return None
    from learner.critic_scorer import (
        start_scorer,  # late: torch takes seconds to import, and no other run needs it here
    )

    return start_scorer(config.learner, model)


def _start_pool(
    config: RunConfig, model: str, replay: ReplayService, scorer: ActorHandle | None, state: dict[str, Any]
) -> PoolClient:
    """Engines come up while the learner does; the learner waits for them when it first needs them."""
    rollout = config.rollout.model_copy(deep=True)
    rollout.engine.weight_transfer = config.learner.broadcast.backend
    arguments = WorkerArgs(
        config=rollout,
        model=model,
        env_id=config.env.id,
        env_kwargs=config.env.kwargs,
        replay=replay.client(seed=config.seed + 1),
        run=config.name,
        seed=config.seed,
        version=int(state.get("version", 0)),
        scorer=scorer,
        candidates=config.learner.chai.candidates,
    )
    return start_pool(arguments, wait=False)


def _train_args(
    config: RunConfig,
    folder: RunFolder,
    model: str,
    checkpoint: Path | None,
    replay: ReplayService,
    pool: PoolClient,
    scorer: ActorHandle | None,
    board: ActorHandle,
) -> TrainArgs:
    return TrainArgs(
        algorithm=config.algorithm,
        learner=config.learner,
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
        temperature=config.rollout.sampling.temperature,
        replay=replay.client(),
        rollouts=pool,
        board=BoardPublisher(board),
        demonstrations=folder.demonstrations,
        resume=checkpoint,
        scorer=scorer,
    )


def _close(config: RunConfig, folder: RunFolder, journal: Journal, wall_seconds: float) -> dict[str, Any]:
    """Write and print what came of it. `wall_seconds` counts from the command's start, earlier parts included."""
    rows = folder.rows()
    summary = summarise(rows, name=config.name, env=config.env.id, wall_seconds=wall_seconds, state=journal.state)
    folder.write_summary(summary)
    console = Console()
    print_summary(summary, console)
    if rows:
        curve = learning_curve(rows, folder.curve_path, title=f"{config.name}: {config.env.id}")
        console.print(f"learning curve {curve}, summary {folder.summary_path}", soft_wrap=True, highlight=False)
    return summary
