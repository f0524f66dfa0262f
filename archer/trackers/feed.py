"""From the events of a run to its trackers: configuration, scalars, tables of evaluations, a sample of episodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from archer.config.models import RunConfig
from archer.driver.progress import Event
from archer.trackers.base import Moment, Tracker, TrackerName, open_tracker
from archer.trackers.isolated import IsolatedTracker
from learner.history.folder import EPISODES, history_files

EPISODES_SHOWN = 3
"""Episodes of each evaluation that trackers keep as text."""
_CURVES = {name: name for name in ("success_rate", "mean_turns", "invalid_share")} | {"return": "return_mean"}
"""The curves of evaluations, and the statistic of each."""
_COLUMNS = ("episode", "return", "success", "turns", "invalid actions")


class TrackerFeed:
    """Hands each event to the trackers `names`; a context manager.

    Args:
        folder: the run folder.
        settings: the resolved configuration as YAML.
        at: cycles and episodes that the run has made already.
        say: shows a sentence to the user.
    """

    def __init__(
        self, names: Sequence[TrackerName], folder: Path, settings: str, at: Moment, say: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._at = at
        self._episodes = {at.cycle: at.episodes}  # after each cycle
        self._trackers = [IsolatedTracker(name, partial(open_tracker, name, folder, at), say) for name in names]
        self._do(lambda tracker: tracker.settings(settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for tracker in self._trackers:
            tracker.close()

    def handle(self, event: Event) -> None:
        """Hand over what the event says, a cycle or an evaluation, as the journal has recorded it."""
        if not self._trackers:
            return
        if event["kind"] == "cycle":
            metrics = event["metrics"]
            self._at = Moment(event["cycle"], int(metrics.get("episodes", self._at.episodes)))
            self._episodes[self._at.cycle] = self._at.episodes
            self._scalars(metrics)
        elif event["kind"] == "restart":
            self._at = at = Moment(event["cycle"], self._episodes.get(event["cycle"], 0))
            self._do(lambda tracker: tracker.rewind(at))
        elif event["kind"] == "evaluation":
            self._evaluation(event)

    def _evaluation(self, event: Event) -> None:
        columns = [event[name] for name in ("returns", "successes", "turns", "invalid_actions")]
        self._scalars({f"evaluation/{shown}": event[name] for shown, name in _CURVES.items()})
        rows = [[number, *row] for number, row in enumerate(zip(*columns, strict=True))]
        name, at = event["name"], self._at
        self._do(lambda tracker: tracker.table(f"evaluation/{name}", _COLUMNS, rows, at))
        for number, text in enumerate(_sample(self._folder, name)):
            self._do(partial(_tell, name=f"episodes/{name}/{number}", text=text, at=at))

    def _scalars(self, values: dict[str, Any]) -> None:
        finite = {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}
        at = self._at
        self._do(lambda tracker: tracker.scalars(finite, at))

    def _do(self, call: Callable[[Tracker], None]) -> None:
        for tracker in self._trackers:
            tracker.do(call)


def track(
    config: RunConfig, folder: Path, settings: str, state: Mapping[str, Any], say: Callable[[str], None]
) -> TrackerFeed:
    """Return the trackers of a run.

    Args:
        settings: the resolved configuration as YAML.
        state: counters of the checkpoint that the run resumes from, {} for a new run.
    """
    at = Moment(int(state.get("cycle", 0)), int(state.get("episodes", 0)))
    return TrackerFeed(config.tracking, folder, settings, at, say)


def _tell(tracker: Tracker, *, name: str, text: str, at: Moment) -> None:
    tracker.text(name, text, at)


def _sample(folder: Path, evaluation: str) -> list[str]:
    """Return the conversations of some episodes of an evaluation, from the run's history; none if it keeps none."""
    for path in reversed(history_files(folder, EPISODES)):
        try:
            rows = pq.read_table(path, columns=["evaluation", "messages", "reward"])
        except (OSError, pa.ArrowInvalid):  # another process thins the folder
            continue
        chosen = [row for row in rows.to_pylist() if row["evaluation"] == evaluation][:EPISODES_SHOWN]
        if chosen:
            return [_conversation(row) for row in chosen]
    return []


def _conversation(row: dict[str, Any]) -> str:
    lines = [f"{message['role']}: {message['content']}" for message in row["messages"]]
    return "\n".join([*lines, f"return: {sum(row['reward']):g}"])
