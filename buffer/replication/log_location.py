"""The location of a replicated log: nodes' own disks while the replay runs, the replay's folder before and after.

    directory/shard-0/away-shard.json    while the log is on a node: {"node", "folder"}
    directory/shard-0/away-replica.json  likewise for the replica

Every node sees the replay's folder. A folder on a node's disk belongs to one service of one replay.
"""

import json
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Literal

from buffer.atomic_files import write_atomic
from buffer.errors import LogError, ReplayError
from buffer.log.folders import link_shard
from buffer.log.priorities import PRIORITIES_FILE
from buffer.log.write_ahead import segment_paths

_INCOMING = "incoming"


def local_folder(local_dir: str | None, directory: Path, service: str, name: str) -> Path:
    """Create and return the folder on this node's disk for `name`, a shard or replica of the replay in `directory`.

    Folders that earlier services of this replay left on this node are deleted. Raises ReplayError if `local_dir` names
    a variable that is not set on this node, or if the folder cannot be created.
    """
    base = (
        Path(tempfile.gettempdir()) / f"archer-replay-{os.getuid()}"
        if local_dir is None
        else Path(os.path.expandvars(local_dir)).expanduser()
    )
    if "$" in str(base) or not base.is_absolute():
        raise ReplayError(
            f"replay.local_dir is {local_dir!r}, on this node {base}: no absolute path; set the variable where Ray "
            "starts on this node, or give an absolute path"
        )
    if local_dir is None:
        _make_private(base)
    root = base / f"{directory.parent.name}-{blake2b(str(directory).encode(), digest_size=6).hexdigest()}"
    folder = root / service / name
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ReplayError(
            f"cannot make {folder} on this node ({error}); set replay.local_dir to a folder of yours"
        ) from error
    for earlier in root.iterdir():
        if earlier.name != service:
            shutil.rmtree(earlier / name, ignore_errors=True)
            _remove_if_empty(earlier)
    return folder


def _make_private(base: Path) -> None:
    """Make a folder that only this user can enter. In the temporary folder another user may have made it first."""
    try:
        base.mkdir(mode=0o700, exist_ok=True)
        found = base.lstat()
    except OSError as error:
        raise ReplayError(f"cannot make {base} on this node ({error}); set replay.local_dir") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ReplayError(f"{base} on this node is not a folder of this user; set replay.local_dir to another folder")
    base.chmod(0o700)


def remove_local(folder: Path) -> None:
    """Delete a folder that `local_folder` returned, and its parents if they are empty."""
    shutil.rmtree(folder, ignore_errors=True)
    _remove_if_empty(folder.parent)
    _remove_if_empty(folder.parent.parent)


def mark_away(shard: Path, who: Literal["shard", "replica"], node: str, folder: Path) -> None:
    """Record in the shard's folder on which node its log or replica is."""
    write_atomic(shard / f"away-{who}.json", json.dumps({"node": node, "folder": str(folder)}))


def unmark_away(shard: Path, who: Literal["shard", "replica"]) -> None:
    """Delete the record of `mark_away`."""
    (shard / f"away-{who}.json").unlink(missing_ok=True)


def refuse_away(directory: Path) -> None:
    """Raise LogError if the log of a shard of the replay in `directory` is still on a node."""
    for mark in directory.glob("shard-*/away-shard.json"):
        shard = mark.parent
        notes = [json.loads(path.read_text()) for path in shard.glob("away-*.json")]
        places = " and ".join(f"on {note['node']} in {note['folder']}" for note in notes)
        raise LogError(
            f"the rows of {shard} are {places}. Read a running replay through a client (buffer.RemoteClient); after a "
            f"crash restore a checkpoint, or move the segments of one of these folders to {shard} and delete "
            "away-shard.json there"
        )


def move_log_back(folder: Path, shard: Path) -> None:
    """Move sealed segments and priorities from a node's folder to the shard's folder, and delete the node's."""
    incoming = shard / _INCOMING
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir()
    link_shard(folder, incoming)
    for old in [*segment_paths(shard), shard / PRIORITIES_FILE]:
        old.unlink(missing_ok=True)
    for path in incoming.iterdir():
        os.replace(path, shard / path.name)
    incoming.rmdir()
    unmark_away(shard, "shard")
    remove_local(folder)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
