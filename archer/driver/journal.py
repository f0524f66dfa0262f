"""What the driver does with each event of the board: write the rows that last, and pass it on to the display."""

import json
from typing import Any

from archer.driver.progress import Progress
from archer.driver.run_folder import RunFolder
from archer.results.statistics import EvalResult

Event = dict[str, Any]


class Journal:
    """Its `handle` is what a BoardFollower calls, from the follower's thread.

    Cycles and evaluations become rows of metrics.jsonl; the learner's counters at the last checkpoint are kept in
    `state` (see learner.engine.checkpoints.TrainerState), which after a resume starts from the checkpoint's own.
    """

    def __init__(self, folder: RunFolder, progress: Progress, *, env: str, greedy: bool = False) -> None:
        self._folder = folder
        self._progress = progress
        self._env = env
        self._greedy = greedy
        self.state: dict[str, Any] = read_state(folder)
        self._cycle = int(self.state.get("cycle", 0))

    def handle(self, event: Event) -> None:
        kind = event["kind"]
        if kind == "cycle":
            self._cycle = event["cycle"]
            self._folder.append_row(_row(event))
        elif kind == "evaluation":
            result = EvalResult.from_event(event, env=self._env, greedy=self._greedy)
            event = {**event, **result.row(cycle=self._cycle, collected_episodes=event["collected_episodes"])}
            self._folder.append_row(_row(event))
        elif kind == "checkpoint":
            self.state = event["state"]
        self._progress.handle(event)


def read_state(folder: RunFolder) -> dict[str, Any]:
    """Counters of the newest checkpoint, {} before the first."""
    newest = folder.latest_checkpoint()
    return {} if newest is None else json.loads((newest / "state.json").read_text(encoding="utf-8"))


def _row(event: Event) -> Event:
    """An event without what only the board and the picture of one evaluation need."""
    dropped = ("sequence", "returns", "successes", "turns", "invalid_actions")
    return {key: value for key, value in event.items() if key not in dropped}
