"""What a run does before it resumes and after it ends, in every mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from archer.config.models import RunConfig
from archer.driver.journal import read_state
from archer.driver.progress import Progress
from archer.driver.run_folder import RunFolder, disk_errors
from archer.results.plots import learning_curve
from archer.results.summary import print_summary, summarise
from buffer.log.write_ahead import read_episodes
from learner.engine.checkpoint_folders import best_policy
from learner.history.folder import drop_after


def rewind(
    folder: RunFolder, checkpoint: Path | None, state: dict[str, Any], progress: Progress, changes: list[str]
) -> None:
    """Bring the rows and the history of the folder back to the checkpoint to resume from.

    Says what changed, and how many episodes the replay loses, which it restores from the checkpoint afterwards.
    """
    cycle = int(state.get("cycle", 0))
    restart = f"{folder.path} has no complete checkpoint yet: starting from the beginning"
    progress.message(f"resuming from {checkpoint} (cycle {cycle})" if checkpoint else restart)
    for sentence in changes:
        progress.message(sentence)
    later = sum(batch.num_rows for batch in read_episodes(folder.replay, after=checkpoint and checkpoint / "replay"))
    if later:
        progress.message(f"replay drops {later} episodes that it stored after that; the run repeats their cycles")
    folder.rewind(cycle)
    drop_after(folder.path, cycle)


def report(config: RunConfig, folder: RunFolder, wall_seconds: float) -> dict[str, Any]:
    """Write and print the summary and the learning curve. `wall_seconds` covers all parts of a resumed run."""
    rows, state = folder.rows(), read_state(folder)
    best = best_policy(folder.path)
    summary = summarise(
        rows,
        name=config.name,
        env=config.env.id,
        wall_seconds=wall_seconds,
        state=state,
        best=None if best is None else best[1],
        algorithm=config.algorithm,
        observations=config.learner.clone.observation_weight > 0,
    )
    console = Console()
    print_summary(summary, console)  # before what a full disk may refuse
    folder.write_summary(summary)
    if rows:
        with disk_errors(folder.curve_path):
            curve = learning_curve(rows, folder.curve_path, title=f"{config.name}: {config.env.id}")
        console.print(f"learning curve {curve}, summary {folder.summary_path}", soft_wrap=True, highlight=False)
    return summary
