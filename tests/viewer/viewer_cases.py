"""Run folders for the viewer's tests, written with the project's own code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.viewer_data import MadeRun, write_run
from learner.history.folder import EPISODES, history_files

SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def say(path: Path, text: str, *, row: int = 0) -> None:
    """Let an episode of a file say `text` in its first action, and in the first token of it."""
    rows = pq.read_table(path)

    def change(name: str, edit: Any) -> None:
        nonlocal rows
        at, values = rows.schema.get_field_index(name), rows.column(name).to_pylist()
        edit(values[row])
        rows = rows.set_column(at, rows.schema.field(at), pa.array(values, rows.schema.field(at).type))

    change("messages", lambda messages: messages[1].update(content=text))
    change("action_text", lambda texts: texts.__setitem__(0, text))
    pq.write_table(rows, path)


def small_runs(root: Path) -> Path:
    """Write two runs into `root`, one of which has said a script, and return `root`."""
    write_run(root, MadeRun("alpha", cycles=4, episodes=12, every=2, evaluated=4, seed=1))
    write_run(root, MadeRun("beta", cycles=2, episodes=6, every=1, evaluated=4, algorithm="ppo", seed=2))
    say(history_files(root / "beta", EPISODES)[0], SCRIPT)
    return root
