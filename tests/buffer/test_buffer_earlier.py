"""Episodes that earlier versions wrote, with fewer columns: archives and logs stay readable."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from replay_cases import assert_same, make_batch, make_episode

import buffer.log.frames as frames
from buffer.archive import read_archive
from buffer.episodes.schema import EARLIER_SCHEMAS, EPISODE_SCHEMA, batch_to_episodes, episodes_to_batch
from buffer.episodes.validation import validate
from buffer.errors import SchemaError
from buffer.log.write_ahead import Recovery, WriteAheadLog, read_log

ALL = pytest.mark.parametrize("schema", EARLIER_SCHEMAS, ids=lambda schema: f"{len(schema)} columns")


def _earlier(schema, indices):
    return make_batch(indices).select(schema.names).replace_schema_metadata(schema.metadata)


@ALL
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_an_earlier_archive_is_read_as_episodes_of_one_segment_that_hide_nothing(tmp_path, form, schema):
    path = tmp_path / f"episodes.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_batches([_earlier(schema, range(5))]), path)
    else:
        with pa.ipc.new_file(str(path), schema) as writer:
            writer.write_batch(_earlier(schema, range(5)))
    (batch,) = read_archive(path)
    assert batch.schema.names == EPISODE_SCHEMA.names
    for got, index in zip(batch_to_episodes(batch), range(5), strict=True):
        assert_same(got, replace(make_episode(index), privileged=""))
        assert got.state_starts.tolist() == [0] * (got.turns + 1)
        assert got.privileged == ""


@ALL
def test_an_earlier_log_is_read_and_goes_on_in_a_new_segment(tmp_path, monkeypatch, schema):
    with monkeypatch.context() as earlier:
        metadata = frames.SEGMENT_SCHEMA.metadata
        earlier.setattr(frames, "SEGMENT_SCHEMA", schema.with_metadata(metadata))
        header = frames.EARLIER_HEADERS[EARLIER_SCHEMAS.index(schema)]
        earlier.setattr(frames, "SEGMENT_HEADER", header)
        earlier.setattr("buffer.log.write_ahead.SEGMENT_HEADER", header)
        empty = frames._EMPTY.select(schema.names).replace_schema_metadata(metadata)
        earlier.setattr(frames, "_EMPTY", empty)
        log = WriteAheadLog(tmp_path, durability="flush", segment_bytes=1 << 30)
        log.append(_earlier(schema, range(3)), 0, 0)
        log.append(_earlier(schema, range(3, 6)), 3, 10)
        log.close()
    recovery = Recovery()
    found = list(read_log(tmp_path, recovery, repair=True))
    assert (recovery.torn_bytes, recovery.damaged) == (0, [])
    log = WriteAheadLog(tmp_path, durability="flush", segment_bytes=1 << 30)
    log.adopt([found[0][0]])
    log.append(make_batch(range(6, 9)), 6, 20)
    log.close()
    batches = [frame.batch for _, frame in read_log(tmp_path, recovery, repair=True)]
    assert (recovery.torn_bytes, recovery.damaged) == (0, [])
    episodes = [episode for batch in batches for episode in batch_to_episodes(batch)]
    assert [episode.episode_id for episode in episodes] == [f"e{index}" for index in range(9)]
    for batch in batches:
        validate(batch)


@pytest.mark.parametrize(
    ("state_start", "said"),
    [
        ([0, 0], "5 turns but 2 state_start"),
        ([1, 0, 0, 0, 0, 0], r"state_start is \[1, 0"),
        ([0, 1, 1, 1, 1, 1], "a state begins where the one before it does, or at the end of the action"),
        ([0, 0, 0, 0, 0, 9999], "state_start is"),
    ],
)
def test_wrong_segments_are_named(state_start, said):
    episode = make_episode(4)
    object.__setattr__(episode, "state_start", np.array(state_start, np.int32))
    with pytest.raises(SchemaError, match=rf"'e4'.*{said}"):
        validate(episodes_to_batch([make_episode(1), episode]))
