"""Folders of a replay: what lies where, beginning one, restoring one from itself or from a checkpoint.

    directory/replay.json      the manifest: format, number of shards; a folder without it is no replay
    directory/limiter.json     counts of the limiter
    directory/shard-0/segment-*.arrow
    directory/shard-0/priorities.npz    after a checkpoint or an orderly end

A checkpoint has the same layout; its manifest is written last, so an unfinished one is never taken for a whole.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buffer.atomic_files import write_atomic
from buffer.errors import LogError, ReplayError
from buffer.log.priorities import PRIORITIES_FILE
from buffer.log.write_ahead import link_or_copy, segment_paths
from buffer.placement import Placement

MANIFEST = "replay.json"
STATE_FILE = "limiter.json"
FORMAT = 2
"""In the first, ids lay where their CRC-32 says."""
_INCOMING = "incoming"


def shard_directory(directory: Path, index: int) -> Path:
    """Where shard `index` keeps its segments."""
    return directory / f"shard-{index}"


@dataclass(frozen=True)
class Manifest:
    """What a replay says of itself."""

    shards: int
    earlier: tuple[Placement, ...] = ()
    """How ids were placed before: where they may lie still."""

    def grown(self, shards: int) -> "Manifest":
        """With more shards."""
        if shards == self.shards:
            return self
        return Manifest(shards, (*self.earlier, Placement("jump", self.shards)))


def begin(directory: Path, shards: int) -> None:
    """Make an empty replay. Raises ReplayError where one is there already."""
    if (directory / MANIFEST).exists() or any(directory.glob("shard-*/segment-*.arrow")):
        raise ReplayError(f"{directory} already holds a replay; restore it (restore=True), or choose another directory")
    _make_room(directory, Manifest(shards))


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a whole replay. Raises LogError where there is none, or one of another format."""
    path = directory / MANIFEST
    if not path.exists():
        raise LogError(f"{directory} holds no replay to restore ({MANIFEST} is missing); check the path")
    content = json.loads(path.read_text())
    found = content.get("format")
    if found not in (1, FORMAT):
        raise LogError(f"{path} has format {found!r}, this ArCHer reads 1 to {FORMAT}")
    earlier = content["earlier"] if found == FORMAT else [("crc32", content["shards"])]
    return Manifest(content["shards"], tuple(Placement(*placement) for placement in earlier))


def grow(directory: Path, shards: int) -> Manifest:
    """Make room for more shards than the replay has; old rows stay where they are.

    Raises LogError where it has more already: rows would be lost.
    """
    manifest = read_manifest(directory)
    if shards < manifest.shards:
        raise LogError(
            f"{directory} has {manifest.shards} shards, the config asks for {shards}, which would leave rows behind; "
            f"set shards={manifest.shards} or more"
        )
    manifest = manifest.grown(shards)
    _make_room(directory, manifest)
    return manifest


def _make_room(directory: Path, manifest: Manifest) -> None:
    for index in range(manifest.shards):
        shard_directory(directory, index).mkdir(parents=True, exist_ok=True)
    _write_manifest(directory, manifest)


def restore_checkpoint(checkpoint: Path, directory: Path) -> None:
    """Make `directory` what `checkpoint` is: rows appended after the checkpoint are dropped.

    The checkpoint itself never changes: its segments are sealed and linked.
    """
    manifest = read_manifest(checkpoint)
    if directory.exists() and directory.samefile(checkpoint):
        raise ReplayError(
            f"{directory} is the checkpoint itself; restore it into another directory, it must not change"
        )
    incoming = directory / _INCOMING
    if incoming.exists():
        shutil.rmtree(incoming)
    for index in range(manifest.shards):
        target = shard_directory(incoming, index)
        target.mkdir(parents=True)
        for path in segment_paths(shard_directory(checkpoint, index)):
            link_or_copy(path, target / path.name)
        priorities = shard_directory(checkpoint, index) / PRIORITIES_FILE
        if priorities.exists():
            shutil.copy2(priorities, target / PRIORITIES_FILE)
    if (checkpoint / STATE_FILE).exists():
        shutil.copy2(checkpoint / STATE_FILE, incoming / STATE_FILE)
    # From here to the manifest an interruption leaves no whole replay; the same call mends it.
    (directory / MANIFEST).unlink(missing_ok=True)
    (directory / STATE_FILE).unlink(missing_ok=True)
    for old in directory.glob("shard-*"):
        shutil.rmtree(old)
    for entry in list(incoming.iterdir()):
        os.replace(entry, directory / entry.name)
    incoming.rmdir()
    _write_manifest(directory, manifest)


def prepare_checkpoint(directory: Path) -> None:
    """Make room for a checkpoint. Raises ReplayError where a whole one stands."""
    if (directory / MANIFEST).exists():
        raise ReplayError(f"{directory} already holds a checkpoint of the replay; choose another directory")
    directory.mkdir(parents=True, exist_ok=True)


def finish_checkpoint(directory: Path, manifest: Manifest, counts: list[dict[str, Any]]) -> None:
    """Mark the checkpoint whole."""
    _write_manifest(directory, manifest, counts=counts)


def _write_manifest(directory: Path, manifest: Manifest, **more: Any) -> None:
    content = {"format": FORMAT, "shards": manifest.shards, "earlier": manifest.earlier, **more}
    write_atomic(directory / MANIFEST, json.dumps(content, indent=1))
