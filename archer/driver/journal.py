"""The driver's handling of events: write rows to metrics.jsonl, and pass each event on to the display."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from archer.driver.clone_watch import CloneWatch
from archer.driver.progress import Event, Progress
from archer.driver.run_folder import RunFolder, latest_checkpoint
from archer.results.statistics import EvalResult
from learner.history.folder import drop_after


class Journal:
    """Writes the rows of metrics.jsonl: cycles, evaluations, held-out losses, dropped episodes, restarts of ranks.

    A BoardFollower calls `handle`. At the learner's first stage it writes `settings`, if given, as config.yaml.
    """

    def __init__(
        self, folder: RunFolder, progress: Progress, *, env: str, greedy: bool = False, settings: str = ""
    ) -> None:
        self._folder = folder
        self._progress = progress
        self._env = env
        self._greedy = greedy
        self._settings = settings
        self._cycle = int(read_state(folder).get("cycle", 0))
        self._watch = CloneWatch()
        for row in folder.rows():  # of a run that is resumed
            self._watch.note(row)

    def handle(self, event: Event) -> Event:
        """Record an event, and return it as it was recorded: that of an evaluation has its statistics."""
        if event["kind"] == "stage" and self._settings:
            # The learner has loaded the checkpoint: now the settings of a resumed run may replace the earlier ones.
            self._folder.write(self._folder.config_path, self._settings)
            self._settings = ""
        if event["kind"] == "cycle":
            self._cycle = event["cycle"]
            self._folder.append_row(event)
        elif event["kind"] == "restart":
            # The ranks repeat the cycles after the checkpoint.
            self._cycle = event["cycle"]
            self._folder.rewind(event["cycle"])
            drop_after(self._folder.path, event["cycle"])
            self._folder.append_row(event)
        elif event["kind"] in ("held_out", "dropped", "passes", "unproved"):
            self._folder.append_row(event)
        elif event["kind"] == "evaluation":
            result = EvalResult.from_event(event, env=self._env, greedy=self._greedy)
            event = {**event, **asdict(result), "cycle": self._cycle}
            per_episode = ("returns", "successes", "turns", "invalid_actions")
            self._folder.append_row({key: value for key, value in event.items() if key not in per_episode})
        self._progress.handle(event)
        if event["kind"] in ("cycle", "evaluation") and (warning := self._watch.note(event)):
            self._progress.message(warning)
        return event


def read_state(folder: RunFolder) -> dict[str, Any]:
    """Return the counters of the newest checkpoint (`learner.engine.checkpoints.TrainerState`), {} before the first."""
    newest = latest_checkpoint(folder.path)
    return {} if newest is None else json.loads((newest / "state.json").read_text(encoding="utf-8"))
