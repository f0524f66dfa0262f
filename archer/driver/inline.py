"""A run in one process (`mode: inline`): no Ray, no vLLM and no network, for small models on a CPU.

The learner is that of the other modes. Its rollouts are `actors.inline.rollouts`, its replay is
`buffer.client.local_client`, and the events go to the journal without a board. The run folder is the same.
"""

from __future__ import annotations

import logging
import shutil
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from actors.inline.rollouts import InlineRollouts
from actors.rollout.player import WorkerArgs
from archer.config.loading import dump_config
from archer.config.models import RunConfig
from archer.driver.demonstrations import demonstration_batches
from archer.driver.fixed_settings import require_fixed
from archer.driver.initial_policy import prepare_policy
from archer.driver.journal import Journal, read_state
from archer.driver.learner_args import train_args
from archer.driver.outcome import report, rewind
from archer.driver.passes import prove_passes
from archer.driver.progress import Event, Progress
from archer.driver.run_folder import RunFolder, latest_checkpoint
from archer.errors import RunError
from archer.trackers.feed import track
from buffer.client.local_client import LocalClient
from learner.critic_scorer import CriticScorer
from learner.entry import run_alone


def run_inline(config: RunConfig, folder: RunFolder, *, resume: bool) -> dict[str, Any]:
    """Train as `archer.run.run` does, in this process, and return the summary.

    Raises RunError, or the base error of another room, if the run cannot continue; error.log has the traceback.
    Episodes since the last checkpoint are then lost, because the replay is in memory.
    """
    started = time.monotonic()
    checkpoint = latest_checkpoint(folder.path) if resume else None
    changes = require_fixed(config, folder.path, checkpoint)
    state = read_state(folder) if checkpoint else {}
    _quiet()
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(config.name, config.cycles))
        progress.message(f"run folder {folder.path}, all in this process")
        if resume:
            rewind(folder, checkpoint, state, progress, changes)
        model, demonstrations = prepare_policy(config, folder, checkpoint, progress)
        passes = prove_passes(config, model)
        greedy, settings = config.evaluation.greedy, dump_config(config)
        journal = Journal(folder, progress, env=config.env.id, greedy=greedy, settings=settings)
        journal.handle(passes.event())
        tracked = stack.enter_context(track(config, folder.path, settings, state, progress.message))
        config = passes.settle(config)
        replay = _open_replay(config, folder, checkpoint)
        stack.callback(replay.close)
        if checkpoint is None and config.demonstrations.keep_in_replay:
            replay.append_all(demonstration_batches(demonstrations), limited=False)
        arguments = WorkerArgs(
            config=config.rollout,
            model=model,
            env_id=config.env.id,
            env_kwargs=config.env.kwargs,
            replay=replay,
            run=config.name,
            seed=config.seed,
            version=int(state.get("version", 0)),
            candidates=config.algorithm_config.proposals(),
        )
        scorer = CriticScorer(config.learner, model) if config.algorithm_config.proposals() else None
        rollouts = InlineRollouts(arguments, scorer)
        stack.callback(rollouts.shutdown)
        args = train_args(
            config,
            folder,
            model=model,
            resume=checkpoint,
            replay=replay,
            rollouts=rollouts,
            board=_Board(lambda event: tracked.handle(journal.handle(event))),
            pass_gap=passes.gap,
            scorer=None if scorer is None else scorer.load,
        )
        try:
            with folder.stoppable(progress.in_cycles):
                run_alone(args)
        except Exception:
            with suppress(RunError):  # a full disk must not hide the error
                folder.write(folder.path / "error.log", traceback.format_exc())
            raise
    return report(config, folder, float(state.get("wall_seconds", 0.0)) + time.monotonic() - started)


class _Board:
    """Hands each event to `handle` at once; implements `learner.protocols.Publisher`."""

    def __init__(self, handle: Callable[[Event], None]) -> None:
        self._handle = handle

    def publish(self, event: Event) -> None:
        """Handle one event, with the present time added."""
        self._handle({**event, "time": time.time()})

    def register_target(self, role: str, name: str, address: str) -> None:
        """Do nothing: an inline run serves no metrics."""


def _open_replay(config: RunConfig, folder: RunFolder, checkpoint: Path | None) -> LocalClient:
    shutil.rmtree(folder.replay, ignore_errors=True)  # of a run that was killed
    restore = checkpoint / "replay" if checkpoint else None
    return LocalClient(config.replay, folder.replay, seed=config.seed, restore=restore)


def _quiet() -> None:
    """Keep the notices of libraries off the terminal, which in other modes go to the logs of Ray's processes."""
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    # The arrays of sampled episodes are read-only, and the learner only reads them.
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")
    disable_progress_bar()
    set_verbosity_error()
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
