"""Episodes that could not be played: on the terminal, in metrics.jsonl and in the summary."""

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from archer.driver.journal import Journal
from archer.driver.progress import Progress
from archer.driver.run_folder import RunFolder
from archer.results.summary import summarise

EVALUATION: dict[str, Any] = {
    "kind": "evaluation",
    "name": "final",
    "collected_episodes": 64,
    "returns": [1.0, 2.0],
    "successes": [1.0, 0.0],
    "turns": [10, 10],
    "invalid_actions": [1, 1],
    "dropped": 2,
}
CYCLE: dict[str, Any] = {"kind": "cycle", "cycle": 1, "metrics": {"return": 1.0, "env_failures": 6.0}}


def test_episodes_that_could_not_be_played_show_everywhere(tmp_path: Path) -> None:
    out = io.StringIO()
    folder = RunFolder.create(tmp_path, "run")
    journal = Journal(folder, Progress("run", 2, Console(file=out, width=200)), env="e")
    reason = "RenderError: the template refuses a tool message"
    journal.handle({"kind": "dropped", "where": "cycle 1", "cycle": 1, "episodes": 6, "reason": reason})
    journal.handle(CYCLE)
    journal.handle(
        {"kind": "dropped", "where": "evaluation final", "cycle": 1, "episodes": 2, "reason": "EnvFailedError: broke"}
    )
    journal.handle(EVALUATION)
    said = out.getvalue()
    assert f"cycle 1: 6 episodes could not be played; {reason}" in said
    assert "2 episodes, and 2 more could not be played" in said
    rows = folder.rows()
    assert [row["dropped"] for row in rows if row["kind"] == "evaluation"] == [2]
    summary = summarise(rows, name="run", env="e", wall_seconds=1.0)
    assert summary["dropped"] == {"episodes": 8, "reason": reason}
    assert any("8 episodes could not be played" in note and reason in note for note in summary["notes"])
    assert summarise([CYCLE], name="run", env="e", wall_seconds=1.0)["dropped"] is None
