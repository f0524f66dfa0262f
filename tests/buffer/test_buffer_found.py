"""Damaged files and requests of the replay that random inputs found, kept as small cases."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pytest
from replay_cases import make_batch

from buffer.archive import read_archive
from buffer.config import ReplayConfig
from buffer.episodes.schema import batch_to_episodes
from buffer.errors import LogError, ReplayError
from buffer.log.frames import SEGMENT_HEADER
from buffer.log.write_ahead import Recovery, WriteAheadLog, read_log
from buffer.metrics import ShardMetrics
from buffer.shard import requests
from buffer.shard.shard import Shard


@pytest.mark.parametrize("value", [0, 0xA4, 0xFF])
def test_any_byte_of_a_segments_header_may_be_damaged(tmp_path: Path, value: int) -> None:
    """Arrow raises other errors than ArrowInvalid there: types that it lacks, names that are not UTF-8."""
    logging.disable(logging.ERROR)
    log = WriteAheadLog(tmp_path, durability="flush", segment_bytes=1 << 30)
    log.append(make_batch([1]), 0, 0)
    log.close()
    (path,) = tmp_path.glob("segment-*.arrow")
    content = path.read_bytes()
    try:
        for place in range(0, SEGMENT_HEADER.size, 3):
            path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
            try:
                found = [
                    e.episode_id
                    for _, frame in read_log(tmp_path, Recovery(), repair=False)
                    for e in batch_to_episodes(frame.batch)
                ]
            except LogError:  # of another version, as far as the header says
                continue
            assert found in ([], ["e1"])
    finally:
        logging.disable(logging.NOTSET)


def test_a_file_whose_schema_is_damaged_is_refused_in_a_sentence(tmp_path: Path) -> None:
    sink = pa.BufferOutputStream()
    batch = make_batch([1, 2])
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        header = sink.tell()
        writer.write_batch(batch)
    content = sink.getvalue().to_pybytes()
    path = tmp_path / "a.arrow"
    for place in range(8, header, 5):
        path.write_bytes(content[:place] + b"\xd3" + content[place + 1 :])
        try:
            list(read_archive(path))
        except ReplayError as error:
            assert "a.arrow" in str(error)  # noqa: PT017


def test_a_draw_that_would_stop_the_shard_for_seconds_is_refused(tmp_path: Path) -> None:
    config = ReplayConfig(shards=1, durability="memory", capacity_turns=200, segment_bytes=1 << 12)
    shard = Shard(0, config, tmp_path, ShardMetrics())
    shard.append(make_batch([1, 2]))
    draw = {"count": 53_962_654, "unit": "turn", "seed": 1}
    with pytest.raises(ReplayError, match=r"a draw of 53,962,654; one request draws at most 4,194,304"):
        requests.take(shard, {"only": {}, "messages": False, "draw": draw})
    draws, _ = requests.take(shard, {"only": {}, "messages": False, "draw": {**draw, "count": 4}})
    assert len(draws) == 4
