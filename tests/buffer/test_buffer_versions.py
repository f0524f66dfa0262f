"""Versions of the episode schema: what version 1 wrote is read for good, what comes from the future is refused."""

from pathlib import Path

import pyarrow as pa
import pytest
from replay_cases import assert_same, make_batch, make_episode

from buffer.archive import read_archive
from buffer.config import ReplayConfig
from buffer.episodes.schema import EPISODE_SCHEMA, SCHEMA_VERSION, VERSION_KEY, batch_to_episodes
from buffer.errors import LogError
from buffer.log.frames import SEGMENT_SCHEMA
from buffer.log.write_ahead import Recovery, WriteAheadLog, read_log
from buffer.metrics import ShardMetrics
from buffer.shard.shard import Shard
from buffer.versions import STEPS, upgraded

WRITTEN = Path(__file__).parent / "version-1"
"""A checkpoint, an export and a file of demonstrations as version 1 wrote them; never to be written again."""


@pytest.mark.parametrize("name", ["checkpoint", "episodes.parquet", "demonstrations.arrow", "."])
def test_whatever_version_1_wrote_is_read(name):
    episodes = [episode for batch in read_archive(WRITTEN / name) for episode in batch_to_episodes(batch)]
    assert len(episodes) == 6
    for index, episode in enumerate(episodes):
        assert_same(episode, make_episode(index, version=index % 3 - 1))
        assert episode.created_at.second == index


def test_a_shard_goes_on_from_what_version_1_wrote(tmp_path):
    for segment in (WRITTEN / "checkpoint" / "shard-0").iterdir():
        (tmp_path / segment.name).write_bytes(segment.read_bytes())
    shard = Shard(0, ReplayConfig(shards=1), tmp_path, ShardMetrics(0))
    assert shard.ids() == [f"e{i}" for i in range(6)]
    assert shard.recovery == Recovery()
    assert shard.append(make_batch(range(4, 9))) == 3


def test_every_version_has_a_step_to_the_next():
    assert set(STEPS) == set(range(1, int(SCHEMA_VERSION)))


def test_batches_go_up_step_by_step_and_not_from_the_future():
    seen = []

    def step(version):
        def add(batch: pa.RecordBatch) -> pa.RecordBatch:
            seen.append(version)
            return batch.append_column(f"new_in_{version + 1}", pa.array([version] * batch.num_rows))

        return add

    steps = {1: step(1), 2: step(2)}
    batch = upgraded(make_batch([0, 1]), "a file", steps, b"3")
    assert seen == [1, 2]
    assert batch.schema.names[-2:] == ["new_in_2", "new_in_3"]
    assert batch.schema.metadata[VERSION_KEY] == b"3"
    assert upgraded(batch, "a file", steps, b"3") is batch
    with pytest.raises(LogError, match=r"a file was written with episode schema b'3', this ArCHer reads up to b'2'"):
        upgraded(batch, "a file", steps, b"2")
    for metadata in (None, {VERSION_KEY: b"one"}, {VERSION_KEY: b"0"}):
        with pytest.raises(LogError, match="not written by ArCHer"):
            upgraded(make_batch([0]).replace_schema_metadata(metadata), "a file")


def test_a_log_from_a_later_version_is_refused_and_left_alone(tmp_path):
    log = WriteAheadLog(tmp_path, durability="flush", segment_bytes=1 << 20)
    log.append(make_batch([0]), 0, 0)
    log.close()
    (path,) = tmp_path.iterdir()
    later = SEGMENT_SCHEMA.with_metadata({**SEGMENT_SCHEMA.metadata, VERSION_KEY: b"2"})
    data = later.serialize().to_pybytes() + path.read_bytes()[SEGMENT_SCHEMA.serialize().size :]
    path.write_bytes(data)
    with pytest.raises(LogError, match=r"episode schema b'2', this ArCHer reads up to b'1'"):
        list(read_log(tmp_path, Recovery(), repair=True))
    assert path.read_bytes() == data
    assert EPISODE_SCHEMA.metadata[VERSION_KEY] == b"1"
