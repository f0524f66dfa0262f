"""One episode for a page: its conversation with values, and the episodes that it can be compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from archer.viewer.conversation import conversation
from archer.viewer.search import ROW
from archer.viewer.store import Store
from archer.viewer.tables import read_episode

_MOST_SIBLINGS = 200


def episode_page(store: Store, run: str, file: str, row: int) -> dict[str, Any] | None:
    """Return the episode in row `row` of a file of a run, or None if the index does not know it.

    Names are looked up in the index and never joined to a path, so that none leads out of the folder.
    """
    found = store.query(
        "SELECT e.env, e.seed, f.path FROM episodes e JOIN files f ON f.file = e.file "
        "WHERE f.run = ? AND f.name = ? AND e.row = ?",
        [run, file, row],
    )
    if not found:
        return None
    record = read_episode(Path(found[0]["path"]), row)
    if record is None:
        return None
    used = "SELECT * EXCLUDE (file, run) FROM used WHERE run = ? AND episode_id = ?"
    values = store.query(used, [run, record["episode_id"]])
    siblings = store.query(
        f"SELECT {ROW} FROM episodes e JOIN files f ON f.file = e.file WHERE e.seed = ? AND e.env = ? "
        f"ORDER BY e.run, e.version, e.cycle, e.id LIMIT {_MOST_SIBLINGS}",
        [found[0]["seed"], found[0]["env"]],
    )
    return {**conversation(record, values), "run": run, "file": file, "row": row, "siblings": siblings}
