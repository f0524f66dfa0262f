"""Episodes on disk: reading any file or folder of the replay schema, and exporting to one Parquet file."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from buffer.episodes.casting import in_schema
from buffer.episodes.schema import EPISODE_SCHEMA, new_rows, ragged_parts
from buffer.episodes.validation import validate
from buffer.errors import ReplayError, SchemaError
from buffer.log.write_ahead import read_episodes
from buffer.replication.log_location import refuse_away

EPISODES_FILE = "episodes.parquet"
"""The file in a folder of episodes that `archer export`, `archer record` or `archer import` wrote."""


@dataclass(frozen=True)
class Exported:
    """Counts of an export."""

    episodes: int
    turns: int
    bytes: int  # Size of the file
    repeated: int  # Episodes omitted because an earlier one had the same id


def read_archive(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield every batch of `EPISODE_SCHEMA` of a file or folder, validated.

    A file is Parquet, or an Arrow IPC file or stream. Other tools may have filtered or rewritten it (`in_schema`). A
    folder holds `episodes.parquet`, or is a run's folder, a replay or a checkpoint. Raises FileNotFoundError if there
    is none of these, ReplayError if it does not hold episodes.
    """
    if (path / EPISODES_FILE).is_file():
        path = path / EPISODES_FILE
    if path.is_dir():
        replay = path / "replay" if (path / "replay").is_dir() else path
        if not list(replay.glob("shard-*")):
            raise FileNotFoundError(path)
        refuse_away(replay)
        for batch in read_episodes(replay):
            validate(batch)  # the folder may come from others, who can make checksums too
            yield batch
        return
    try:
        for batch in map(in_schema, _file_batches(path)):
            validate(batch)
            yield batch
    except (SchemaError, pa.ArrowException, KeyError, ValueError) as error:
        raise ReplayError(f"{path} cannot be read as episodes: {error}") from error


def _file_batches(path: Path) -> Iterator[pa.RecordBatch]:
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=1024)
        return
    with pa.memory_map(str(path)) as source:
        try:
            reader = pa.ipc.open_file(source)
        except pa.ArrowInvalid:
            source.seek(0)
            yield from pa.ipc.open_stream(source)
            return
        yield from map(reader.get_batch, range(reader.num_record_batches))


def export(source: Path, folder: Path) -> Exported:
    """Write every episode of `source` (see `read_archive`) once to `folder/episodes.parquet`, zstd-compressed.

    The replay may run meanwhile; its log may still hold episodes that it has evicted. The file appears when it is
    complete. Raises ReplayError if there is no episode.
    """
    part, target = folder / f".{EPISODES_FILE}.part", folder / EPISODES_FILE
    seen: set[str] = set()
    repeated = turns = 0
    try:
        with pq.ParquetWriter(part, EPISODE_SCHEMA, compression="zstd") as writer:
            for batch in read_archive(source):
                fresh = new_rows(batch, seen)
                repeated += batch.num_rows - len(fresh)
                if fresh:
                    batch = batch.take(pa.array(fresh))
                    seen.update(batch.column("episode_id").to_pylist())
                    turns += int(ragged_parts(batch.column("action_start"))[0][-1])
                    writer.write_batch(batch)
        if not seen:
            raise ReplayError(f"{source} holds no episode to export")
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return Exported(len(seen), turns, target.stat().st_size, repeated)
