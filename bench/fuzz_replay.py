"""What the replay reads: rows, damaged buffers, segments of logs, files of episodes, and requests over the network."""

from __future__ import annotations

import io
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.flight as flight
import pyarrow.parquet as pq
from hypothesis import strategies as st

from bench.fuzz_core import Probe, Target, must
from buffer.archive import read_archive
from buffer.config import ReplayConfig
from buffer.episodes.packing import unpack
from buffer.episodes.schema import EPISODE_SCHEMA, RAGGED_DTYPES, Episode, batch_to_episodes, episodes_to_batch
from buffer.episodes.validation import validate
from buffer.episodes.wire import check_wire, to_wire
from buffer.errors import ReplayError, SchemaError
from buffer.flight.serving import errors_for_client
from buffer.log.write_ahead import Recovery, WriteAheadLog, read_log
from buffer.metrics import ShardMetrics
from buffer.sampling.request import RowFilter
from buffer.shard import requests
from buffer.shard.shard import Shard

_INTEGERS = st.sampled_from([-(2**31), -7, -1, 0, 1, 2, 3, 4, 5, 6, 9, 100, 2**31 - 1]) | st.integers(
    -(2**31), 2**31 - 1
)
_FLOATS = st.floats(width=32)
_TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
_ROWS = 8


def targets() -> list[Target]:
    """Return the targets of this module."""
    return [
        Target("replay-rows", 2.0, _rows),
        Target("replay-buffers", 1.0, _buffers),
        Target("replay-segments", 0.5, _segments),
        Target("replay-files", 0.5, _files),
    ]


def sound_episode(index: int, turns: int = 2) -> Episode:
    """Return a valid episode whose values follow from `index`."""
    starts = np.arange(turns, dtype=np.int32) * 5 + 2
    tokens = (np.arange(turns * 5 + 1, dtype=np.int32) + index) % 50
    return Episode(
        episode_id=f"e{index}",
        tokens=tokens,
        action_start=starts,
        action_end=starts + 3,
        reward=np.full(turns, -1.0, np.float32),
        logprobs=np.full(3 * turns, -0.5, np.float32),
        versions=np.full(3 * turns, index % 3, np.int32),
        terminated=True,
        truncated=False,
        env="fuzz",
        messages=[{"role": "user", "content": "?"}],
    )


def memory_shard(folder: Path) -> Shard:
    """Return a small shard without a log."""
    config = ReplayConfig(shards=1, durability="memory", capacity_turns=200, segment_bytes=1 << 12)
    return Shard(0, config, folder, ShardMetrics())


@contextmanager
def _rows(folder: Path) -> Iterator[Probe]:
    """Batches of rows whose cells are partly sound and partly anything: refused as a whole, or stored and read back."""
    shard = memory_shard(folder)
    number = 0
    ragged = {
        name: st.lists(_FLOATS if dtype.kind == "f" else _INTEGERS, max_size=7) for name, dtype in RAGGED_DTYPES.items()
    }
    flags = st.booleans() | st.none()
    cells: dict[str, st.SearchStrategy[Any]] = {
        **ragged,
        "episode_id": _TEXT | st.sampled_from(["e1", "e2"]) | st.none(),
        "terminated": flags,
        "truncated": flags,
        "success": flags,
        "seed": st.integers(-(2**63), 2**63 - 1) | st.none(),
        "env": _TEXT | st.none(),
        "messages": st.lists(
            st.fixed_dictionaries({"role": _TEXT | st.none(), "content": _TEXT | st.none()}), max_size=2
        )
        | st.none(),
    }
    one = st.sampled_from(sorted(cells)).flatmap(lambda name: st.tuples(st.just(name), cells[name]))
    row = st.tuples(st.integers(1, 4), st.lists(one, max_size=3))

    def check(rows: list[tuple[int, list[tuple[str, Any]]]]) -> None:
        nonlocal number
        made = []
        for turns, changes in rows:
            number += 1
            made.append({**vars(sound_episode(number, turns)), **dict(changes)})
        columns = [pa.array([row[field.name] for row in made], field.type) for field in EPISODE_SCHEMA]
        batch = pa.RecordBatch.from_arrays(columns, schema=EPISODE_SCHEMA)
        try:
            validate(batch)
        except SchemaError as error:
            must("row" in str(error) or "column" in str(error), str(error))
            return
        new = shard.append(batch)
        assert 0 <= new <= len(made)
        draws, batches = shard.draw(4, unit="turn", only=RowFilter(), seed=number, messages=True)
        episodes = [episode for part in batches for episode in unpack(part)]
        assert len(draws) == 4
        for episode in episodes:
            for turn in range(episode.turns + 1):
                assert 0 < len(episode.state(turn)) <= len(episode.tokens)
        assert len(batch_to_episodes(batch)) == len(made)

    yield Probe(st.lists(row, min_size=1, max_size=_ROWS), check, _ROWS // 2)


@contextmanager
def _buffers(folder: Path) -> Iterator[Probe]:
    """Batches as they arrive, whose memory was changed behind their schema: offsets that leave their values."""
    shard = memory_shard(folder)
    sound = to_wire(episodes_to_batch([sound_episode(index) for index in range(3)]))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, sound.schema) as writer:
        header = sink.tell()
        writer.write_batch(sound)
        end = sink.tell()
    content = sink.getvalue().to_pybytes()
    change = st.tuples(st.integers(header, end - 1), st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))

    def check(changes: list[tuple[int, int]]) -> None:
        data = bytearray(content)
        for place, value in changes:
            data[place] = value
        # As the server does: every error of the block is an answer.
        with suppress(flight.FlightServerError, pa.ArrowException, OSError), errors_for_client("put"):
            for batch in pa.ipc.open_stream(pa.py_buffer(data)):  # none if the header became an end mark
                check_wire(batch.schema)
                requests.append(shard, batch)

    yield Probe(st.lists(change, min_size=1, max_size=4), check)


def _mutations(size: int) -> st.SearchStrategy[list[tuple[str, int, int]]]:
    """Return changes of a file of `size` bytes: other bytes, a cut, a repeated part."""
    place = st.integers(0, size - 1)
    kinds = st.sampled_from(["byte", "byte", "byte", "cut", "repeat", "zeros"])
    return st.lists(st.tuples(kinds, place, st.integers(0, 255)), min_size=1, max_size=4)


def _mutated(content: bytes, changes: list[tuple[str, int, int]]) -> bytes:
    data = bytearray(content)
    for kind, place, value in changes:
        if place >= len(data):
            continue
        if kind == "byte":
            data[place] = value
        elif kind == "cut":
            del data[place:]
        elif kind == "repeat":
            data[place:place] = data[place : place + 8 * value]
        else:
            data[place : place + value] = bytes(min(value, len(data) - place))
    return bytes(data)


@contextmanager
def _segments(folder: Path) -> Iterator[Probe]:
    """Damaged segments of a log: what is read back is a part of what was written, unchanged."""
    written = folder / "written"
    written.mkdir()
    log = WriteAheadLog(written, durability="flush", segment_bytes=1 << 30)
    rows = 0
    for first in range(0, 12, 3):
        log.append(episodes_to_batch([sound_episode(i) for i in range(first, first + 3)]), first, rows)
        rows += 6
    log.close()
    (path,) = written.glob("segment-*.arrow")
    content = path.read_bytes()
    sound = {f"e{i}": sound_episode(i) for i in range(12)}
    damaged = folder / "damaged"

    def check(changes: list[tuple[str, int, int]]) -> None:
        shutil.rmtree(damaged, ignore_errors=True)
        damaged.mkdir()
        (damaged / path.name).write_bytes(_mutated(content, changes))
        try:
            for _, frame in read_log(damaged, Recovery(), repair=True):
                for episode in batch_to_episodes(frame.batch):
                    assert episode.tokens.tolist() == sound[episode.episode_id].tokens.tolist()
        except ReplayError:
            return

    logging.disable(logging.ERROR)  # Each damaged part has a line.
    try:
        yield Probe(_mutations(len(content)), check)
    finally:
        logging.disable(logging.NOTSET)


@contextmanager
def _files(folder: Path) -> Iterator[Probe]:
    """Damaged Parquet and Arrow files: refused in a sentence, or episodes that follow the rules."""
    batch = episodes_to_batch([sound_episode(index) for index in range(6)])
    contents: dict[str, bytes] = {}
    parquet = io.BytesIO()
    pq.write_table(pa.Table.from_batches([batch]), parquet, compression="none")
    contents["a.parquet"] = parquet.getvalue()
    for name, opened in (("b.arrow", pa.ipc.new_file), ("c.arrow", pa.ipc.new_stream)):
        sink = pa.BufferOutputStream()
        with opened(sink, batch.schema) as writer:
            writer.write_batch(batch)
        contents[name] = sink.getvalue().to_pybytes()

    def check(value: tuple[str, list[tuple[str, int, int]]]) -> None:
        name, changes = value
        path = folder / name
        path.write_bytes(_mutated(contents[name], changes))
        try:
            for found in read_archive(path):
                validate(found)
                batch_to_episodes(found)
        except (ReplayError, OSError):
            return

    yield Probe(
        st.sampled_from(sorted(contents)).flatmap(
            lambda name: st.tuples(st.just(name), _mutations(len(contents[name])))
        ),
        check,
    )
