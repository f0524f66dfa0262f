"""TensorBoard: event files in the run folder, written by tensorboardX, which needs neither TensorFlow nor torch."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from archer.trackers.base import Moment, preformatted

FOLDER = "tensorboard"
_NUMBERS = itertools.count()


class TensorBoardTracker:
    """Writes `tensorboard/` of the run folder: `tensorboard --logdir runs` shows all runs.

    TensorBoard has one axis for each curve, so that each value has a curve in `cycle` and one in `episodes`.
    """

    def __init__(self, folder: Path, at: Moment) -> None:
        self._folder = folder / FOLDER
        self._open(at)

    def _open(self, at: Moment) -> None:
        """Begin new files, whose first entry makes TensorBoard drop the points after `at` of earlier ones."""
        from tensorboardX import SummaryWriter  # late: only a run with this tracker needs it

        # The names of two files of one second must differ, and be read in this order.
        suffix = f".{os.getpid()}.{next(_NUMBERS):06d}"
        # A purge has one step for all curves of a folder: each axis has a folder of its own.
        self._by_cycle, self._by_episodes = (
            SummaryWriter(
                str(self._folder / axis), purge_step=step + 1 if step else None, filename_suffix=suffix, flush_secs=10
            )
            for axis, step in zip(at._fields, at, strict=True)
        )

    def settings(self, text: str) -> None:
        self._by_cycle.add_text("configuration", preformatted(text), 0)

    def scalars(self, values: Mapping[str, float], at: Moment) -> None:
        for name, value in values.items():
            self._by_cycle.add_scalar(name, value, at.cycle)
            self._by_episodes.add_scalar(name, value, at.episodes)
        self._flush()

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], at: Moment) -> None:
        lines = [columns, ["---"] * len(columns), *rows]
        self._by_cycle.add_text(name, "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines), at.cycle)
        self._flush()

    def text(self, name: str, text: str, at: Moment) -> None:
        self._by_cycle.add_text(name, preformatted(text), at.cycle)

    def rewind(self, at: Moment) -> None:
        self.close()
        self._open(at)

    def close(self) -> None:
        self._by_cycle.close()
        self._by_episodes.close()

    def _flush(self) -> None:
        self._by_cycle.flush()
        self._by_episodes.flush()


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
