"""Where a replicated shard's log lies: on nodes' own disks while the replay runs, before and after it at home.

    directory/shard-0/away-shard.json    while the rows that count are on nodes: {"node", "folder"}
    directory/shard-0/away-replica.json  likewise of the replica

Home, in the replay's folder, is where every node looks; the folder on a node's disk belongs to one life of one replay.
"""

import json
import os
import shutil
import tempfile
from hashlib import blake2b
from pathlib import Path
from typing import Literal

from buffer.atomic_files import write_atomic
from buffer.errors import LogError, ReplayError
from buffer.log.priorities import PRIORITIES_FILE
from buffer.log.write_ahead import link_or_copy, segment_paths

_INCOMING = "incoming"


def local_folder(local_dir: str | None, directory: Path, life: str, name: str) -> Path:
    """The folder on this node's disk for `name`, a shard or replica of the replay in `directory`.

    Those that earlier lives of this replay left on this node are deleted. Raises ReplayError where `local_dir` names
    a variable that this node's environment lacks, or no folder can be made there.
    """
    base = (
        Path(tempfile.gettempdir()) / f"archer-replay-{os.getuid()}"
        if local_dir is None
        else Path(os.path.expandvars(local_dir))
    )
    if "$" in str(base) or not base.is_absolute():
        raise ReplayError(
            f"replay.local_dir is {local_dir!r}, on this node {base}: no folder; set the variable where Ray starts on "
            "this node, or give an absolute path"
        )
    root = base / f"{directory.parent.name}-{blake2b(str(directory).encode(), digest_size=6).hexdigest()}"
    folder = root / life / name
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ReplayError(
            f"cannot make {folder} on this node ({error}); set replay.local_dir to a folder of yours"
        ) from error
    for earlier in root.iterdir():
        if earlier.name != life:
            shutil.rmtree(earlier / name, ignore_errors=True)
            _remove_empty(earlier)
    return folder


def leave_home(home: Path, who: Literal["shard", "replica"], node: str, folder: Path) -> None:
    """Say where the rows are from now on."""
    write_atomic(home / f"away-{who}.json", json.dumps({"node": node, "folder": str(folder)}))


def copy_from_home(home: Path, folder: Path) -> None:
    """Fill an empty folder with the segments and priorities at home."""
    for path in [*segment_paths(home), home / PRIORITIES_FILE]:
        if path.exists():
            link_or_copy(path, folder / path.name)


def bring_home(folder: Path, home: Path) -> None:
    """Put sealed segments and priorities where they were before the replay ran, and delete the folder."""
    incoming = home / _INCOMING
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir()
    copy_from_home(folder, incoming)
    for old in [*segment_paths(home), home / PRIORITIES_FILE]:
        old.unlink(missing_ok=True)
    for path in incoming.iterdir():
        os.replace(path, home / path.name)
    incoming.rmdir()
    come_home(home, "shard")
    remove_local(folder)


def come_home(home: Path, who: Literal["shard", "replica"]) -> None:
    """Take back what `leave_home` said."""
    (home / f"away-{who}.json").unlink(missing_ok=True)


def remove_local(folder: Path) -> None:
    """Delete a folder that `local_folder` gave, and those above it that are then empty."""
    shutil.rmtree(folder, ignore_errors=True)
    _remove_empty(folder.parent)
    _remove_empty(folder.parent.parent)


def refuse_away(home: Path) -> None:
    """Raises LogError where the rows of a shard are on nodes still."""
    if not (home / "away-shard.json").exists():
        return
    notes = [json.loads(path.read_text()) for path in home.glob("away-*.json")]
    places = " and ".join(f"on {note['node']} in {note['folder']}" for note in notes)
    raise LogError(
        f"the rows of {home} are {places}. A replay that runs is read through its clients "
        "(buffer.RemoteClient); after a crash restore a checkpoint, or move the segments of one of these "
        f"folders to {home} and delete away-shard.json there"
    )


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # Another's folder is in it.
