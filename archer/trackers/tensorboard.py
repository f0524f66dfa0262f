"""TensorBoard: event files in the run folder, written by tensorboardX, which needs neither TensorFlow nor torch."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from archer.trackers.base import Moment, preformatted

FOLDER = "tensorboard"
_NUMBERS = itertools.count()


class _Axis:
    """The event file of one axis. Each call writes in the calling thread.

    The SummaryWriter of tensorboardX writes in a thread of its own: on a full disk this thread ends with a traceback on
    the terminal, and the next calls wait for it without end.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        # Late: only a run with this tracker needs them.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._event = Event
        folder.mkdir(parents=True, exist_ok=True)
        # The names of two files of one second must differ, and be read in this order.
        self._file = EventsWriter(str(folder / "events"), f".{os.getpid()}.{next(_NUMBERS):06d}")
        if purge_step is not None:
            log = SessionLog(status=SessionLog.START)
            self._file.write_event(Event(wall_time=time.time(), step=purge_step, session_log=log))

    def scalar(self, name: str, value: float, step: int) -> None:
        from tensorboardX.summary import scalar

        self._add(scalar(name, value), step)

    def text(self, name: str, text: str, step: int) -> None:
        from tensorboardX.summary import text as summary_of

        self._add(summary_of(name, text), step)

    def _add(self, summary: Any, step: int) -> None:
        self._file.write_event(self._event(wall_time=time.time(), step=step, summary=summary))

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class TensorBoardTracker:
    """Writes `tensorboard/` of the run folder: `tensorboard --logdir runs` shows all runs.

    TensorBoard has one axis for each curve, so that each value has a curve in `cycle` and one in `episodes`.
    """

    def __init__(self, folder: Path, at: Moment) -> None:
        self._folder = folder / FOLDER
        self._open(at)

    def _open(self, at: Moment) -> None:
        """Begin new files, whose first entry makes TensorBoard drop the points after `at` of earlier ones."""
        # A purge has one step for all curves of a folder: each axis has a folder of its own.
        self._by_cycle, self._by_episodes = (
            _Axis(self._folder / axis, step + 1 if step else None) for axis, step in zip(at._fields, at, strict=True)
        )

    def settings(self, text: str) -> None:
        self._by_cycle.text("configuration", preformatted(text), 0)

    def scalars(self, values: Mapping[str, float], at: Moment) -> None:
        for name, value in values.items():
            self._by_cycle.scalar(name, value, at.cycle)
            self._by_episodes.scalar(name, value, at.episodes)
        self._flush()

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], at: Moment) -> None:
        lines = [columns, ["---"] * len(columns), *rows]
        self._by_cycle.text(name, "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines), at.cycle)
        self._flush()

    def text(self, name: str, text: str, at: Moment) -> None:
        self._by_cycle.text(name, preformatted(text), at.cycle)

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
