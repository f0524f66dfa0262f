"""The folder of a replay: its layout, how it begins, and how a checkpoint is restored into it.

    directory/replay.json      the manifest: format, number of shards; a folder without it is no replay
    directory/limiter.json     counts of the limiter
    directory/shard-0/segment-*.arrow
    directory/shard-0/priorities.npz    after a checkpoint or an orderly end

A checkpoint has the same layout. Its manifest is written last, so an unfinished checkpoint is never restored.
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

MANIFEST = "replay.json"
STATE_FILE = "limiter.json"
FORMAT = 2
_HASH = "jump"  # The hash of `buffer.placement.shard_of`, as the manifest names it
_INCOMING = "incoming"


def shard_directory(directory: Path, index: int) -> Path:
    """Return the folder of shard `index`."""
    return directory / f"shard-{index}"


@dataclass(frozen=True)
class Manifest:
    """The shards of a replay."""

    shards: int
    earlier: tuple[int, ...] = ()
    """Numbers of shards that the replay had before; old episodes are still in their shard of then."""


def begin(directory: Path, shards: int) -> None:
    """Create an empty replay. Raises ReplayError if there is one already."""
    if (directory / MANIFEST).exists() or any(directory.glob("shard-*/segment-*.arrow")):
        raise ReplayError(f"{directory} already holds a replay; restore it (restore=True), or choose another directory")
    _make_shards(directory, Manifest(shards))


def read_manifest(directory: Path) -> Manifest:
    """Return the manifest of a complete replay. Raises LogError if it is missing or has another format."""
    path = directory / MANIFEST
    if not path.exists():
        raise LogError(f"{directory} holds no replay to restore ({MANIFEST} is missing); check the path")
    content = json.loads(path.read_text())
    if (found := content.get("format")) != FORMAT:
        raise LogError(
            f"{path} has format {found!r}, this ArCHer reads {FORMAT}; use the version of ArCHer that wrote it"
        )
    return Manifest(content["shards"], tuple(shards for _, shards in content["earlier"]))


def grow(directory: Path, shards: int) -> Manifest:
    """Add folders for more shards; rows stay where they are. Raises LogError if there are more shards already."""
    manifest = read_manifest(directory)
    if shards < manifest.shards:
        raise LogError(
            f"{directory} has {manifest.shards} shards, the config asks for {shards}, which would leave rows behind; "
            f"set shards={manifest.shards} or more"
        )
    if shards > manifest.shards:
        manifest = Manifest(shards, (*manifest.earlier, manifest.shards))
    _make_shards(directory, manifest)
    return manifest


def _make_shards(directory: Path, manifest: Manifest) -> None:
    for index in range(manifest.shards):
        shard_directory(directory, index).mkdir(parents=True, exist_ok=True)
    write_manifest(directory, manifest)


def restore_checkpoint(checkpoint: Path, directory: Path) -> None:
    """Make `directory` equal to `checkpoint`; rows appended after the checkpoint are dropped.

    The checkpoint itself does not change: its segments are sealed, and hard-linked.
    """
    manifest = read_manifest(checkpoint)
    if directory.exists() and directory.samefile(checkpoint):
        raise ReplayError(
            f"{directory} is the checkpoint itself; restore it into another directory, it must not change"
        )
    incoming = directory / _INCOMING
    shutil.rmtree(incoming, ignore_errors=True)
    for index in range(manifest.shards):
        target = shard_directory(incoming, index)
        target.mkdir(parents=True)
        link_shard(shard_directory(checkpoint, index), target)
    if (checkpoint / STATE_FILE).exists():
        shutil.copy2(checkpoint / STATE_FILE, incoming / STATE_FILE)
    # Until the manifest is written, an interruption leaves an incomplete replay, which the same call repairs.
    (directory / MANIFEST).unlink(missing_ok=True)
    (directory / STATE_FILE).unlink(missing_ok=True)
    for old in directory.glob("shard-*"):
        shutil.rmtree(old)
    for entry in list(incoming.iterdir()):
        os.replace(entry, directory / entry.name)
    incoming.rmdir()
    write_manifest(directory, manifest)


def link_shard(source: Path, target: Path) -> None:
    """Link or copy the segments and priorities of a shard's folder into an empty one."""
    for path in [*segment_paths(source), source / PRIORITIES_FILE]:
        if path.exists():
            link_or_copy(path, target / path.name)


def prepare_checkpoint(directory: Path) -> None:
    """Create the folder of a checkpoint. Raises ReplayError if it holds a complete one."""
    if (directory / MANIFEST).exists():
        raise ReplayError(f"{directory} already holds a checkpoint of the replay; choose another directory")
    directory.mkdir(parents=True, exist_ok=True)


def write_manifest(directory: Path, manifest: Manifest, **more: Any) -> None:
    """Mark a replay or a checkpoint complete; `more` are entries for people."""
    earlier = [(_HASH, shards) for shards in manifest.earlier]
    content = {"format": FORMAT, "shards": manifest.shards, "earlier": earlier, **more}
    write_atomic(directory / MANIFEST, json.dumps(content, indent=1))
