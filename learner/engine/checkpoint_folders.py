"""The folders of a run's checkpoints and of its best policy: their names, which are complete, and which are kept.

This module imports no torch, so that the command line can list checkpoints without loading it.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

from buffer.atomic_files import write_atomic
from learner.errors import CheckpointError

CRITIC_FILE = "critic.pt"
"""The critic's weights in a checkpoint of an algorithm that plays by its critic."""

EVALUATION_FILE = "evaluation.json"
"""The evaluation of a policy in `best/`: name, cycle, collected_episodes, and the columns of its episodes."""

FIXED_FILE = "fixed.json"
"""The settings of the run that the checkpoint fixes, by the path of the field."""

STOP_FILE = "stop"
"""In the folder of a run: asks the ranks to end after the present cycle, with a checkpoint."""

_NAME = re.compile(r"cycle-(\d{5,})")


def checkpoint_folders(directory: Path) -> list[Path]:
    """Return the complete checkpoints in `directory`, oldest first; an empty list if there is no such folder."""
    if not directory.is_dir():
        return []
    found = {path: match for path in directory.iterdir() if (match := _NAME.fullmatch(path.name))}
    return sorted(found, key=lambda path: int(found[path][1]))


def cycle_of(checkpoint: Path) -> int:
    """Return the number of finished cycles of a checkpoint, from the name of its folder."""
    return int(checkpoint.name.rpartition("-")[2])


def begin(directory: Path, cycle: int) -> Path:
    """Make an empty folder for a checkpoint that is being written. Its name does not count as a checkpoint's."""
    partial = directory / f"cycle-{cycle:05d}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def commit(partial: Path, keep: int, in_use: Path | None = None) -> Path:
    """Rename a finished checkpoint to its final name, and return its path.

    Deletes all but the newest `keep`, except one that is still `in_use`.
    """
    final = _rename(partial)
    for old in checkpoint_folders(final.parent)[:-keep]:
        if in_use is None or old.resolve() != in_use.resolve():
            shutil.rmtree(old, ignore_errors=True)
    return final


def commit_best(partial: Path, evaluation: dict[str, Any]) -> Path:
    """Commit a policy that was evaluated as the best so far, with its evaluation, and delete the earlier best one."""
    (partial / EVALUATION_FILE).write_text(json.dumps(evaluation))
    final = _rename(partial)
    for old in checkpoint_folders(final.parent):
        if old != final:
            shutil.rmtree(old, ignore_errors=True)
    return final


def _rename(partial: Path) -> Path:
    """Give a finished folder its final name, in place of an earlier one of that name."""
    final = partial.with_suffix("")
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    return final


def best_policy(run: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the folder of a run's best evaluated policy and its evaluation; None if there is none.

    A run that was killed may have left two such folders; the one of higher mean return counts.
    """
    found = [
        (folder, json.loads((folder / EVALUATION_FILE).read_text(encoding="utf-8")))
        for folder in checkpoint_folders(run / "best")
    ]
    return max(found, key=lambda entry: mean_return(entry[1]), default=None)


def write_fixed(checkpoint: Path, settings: dict[str, Any]) -> None:
    """Record the settings that a checkpoint fixes."""
    write_atomic(checkpoint / FIXED_FILE, json.dumps(settings, indent=2))


def read_fixed(checkpoint: Path) -> dict[str, Any] | None:
    """Return the settings that a checkpoint fixes; None if it has no record of them. Raises CheckpointError."""
    path = checkpoint / FIXED_FILE
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} can't be read ({error}); resume from an older checkpoint") from error
    return settings


def mean_return(evaluation: dict[str, Any]) -> float:
    """Return the mean return of an evaluation, from its column `returns`."""
    return math.fsum(evaluation["returns"]) / len(evaluation["returns"])
