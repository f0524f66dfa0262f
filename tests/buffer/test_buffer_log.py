"""The write-ahead log: complete batches are recovered, torn and damaged ones are not, a full disk changes nothing."""

import os
import resource
import signal

import pyarrow as pa
import pytest
from replay_cases import make_batch

from buffer.errors import DiskFullError, LogError, ReplayError
from buffer.log.folders import begin, restore_checkpoint
from buffer.log.frames import SEGMENT_SCHEMA
from buffer.log.write_ahead import Recovery, WriteAheadLog, read_episodes, read_log, segment_paths


def write(directory, batches: int, *, durability="flush", segment_bytes=1 << 30) -> WriteAheadLog:
    log = WriteAheadLog(directory, durability=durability, segment_bytes=segment_bytes)
    append(log, *range(batches))
    return log


def append(log: WriteAheadLog, *batches: int) -> None:
    for index in batches:
        log.append(make_batch(range(3 * index, 3 * index + 3)), 3 * index, 10 * index)


def read(directory, *, repair=True):
    recovery = Recovery()
    frames = [frame for _, frame in read_log(directory, recovery, repair=repair)]
    ids = [name for frame in frames for name in frame.batch.column("episode_id").to_pylist()]
    return ids, frames, recovery


def names(*batches: int) -> list[str]:
    return [f"e{3 * index + row}" for index in batches for row in range(3)]


@pytest.mark.parametrize("durability", ["flush", "fsync"])
def test_what_was_appended_comes_back_with_its_place(tmp_path, durability):
    write(tmp_path, 4, durability=durability)  # never closed: a killed process does not close either
    ids, frames, recovery = read(tmp_path)
    assert ids == names(0, 1, 2, 3)
    assert [(frame.first_row, frame.turns_before) for frame in frames] == [(0, 0), (3, 10), (6, 20), (9, 30)]
    assert (recovery.torn_bytes, recovery.damaged) == (0, [])
    # Without the last column: created_at differs between two calls of make_batch.
    want = make_batch(range(3, 6))
    for name in want.schema.names[:-1]:
        assert frames[1].batch.column(name).equals(want.column(name))


def test_segments_are_plain_arrow_streams(tmp_path):
    write(tmp_path, 3).close()
    (path,) = segment_paths(tmp_path)
    with pa.OSFile(str(path)) as source:
        table = pa.ipc.open_stream(source).read_all()
    assert table.column("episode_id").to_pylist() == names(0, 1, 2)
    assert len(table.to_pandas()) == 9


def test_every_torn_tail_is_cut_back_to_the_last_whole_batch(tmp_path):
    (tmp_path / "whole").mkdir()
    log = write(tmp_path / "whole", 2)
    two = log.size
    log.append(make_batch(range(6, 9)), 6, 20)
    (path,) = segment_paths(tmp_path / "whole")
    content = path.read_bytes()
    torn = tmp_path / "torn"
    torn.mkdir()
    for cut in range(two, len(content), 97):
        (torn / path.name).write_bytes(content[:cut])
        ids, _, recovery = read(torn)
        assert ids == names(0, 1)
        assert recovery.torn_bytes == cut - two
        assert recovery.damaged == []
        assert (torn / path.name).stat().st_size == two


def test_tail_torn_inside_the_first_batch_leaves_nothing(tmp_path):
    write(tmp_path, 1)
    (path,) = segment_paths(tmp_path)
    for cut in (0, 100, 1400, 2000):
        path.write_bytes(path.read_bytes()[:cut] if cut < path.stat().st_size else b"")
        assert read(tmp_path, repair=False)[0] == []


def test_a_flipped_bit_costs_its_batch_and_no_other(tmp_path):
    log = write(tmp_path, 1)
    one = log.size
    log = write(tmp_path, 5)
    (path,) = segment_paths(tmp_path)
    content = path.read_bytes()
    frame = (len(content) - one) // 4
    for offset in range(one, one + frame, 41):
        damaged = bytearray(content)
        damaged[offset] ^= 1 << offset % 8
        path.write_bytes(damaged)
        ids, _, recovery = read(tmp_path)
        if ids == names(0, 1, 2, 3, 4):
            continue  # a bit of the seal that carries nothing
        assert ids == names(0, 2, 3, 4), offset
        assert len(recovery.damaged) == 1
        assert "skipped to the next complete batch (row 6)" in recovery.damaged[0]
        assert recovery.torn_bytes == 0


def test_damage_at_the_end_of_a_sealed_segment_is_reported(tmp_path):
    write(tmp_path, 4, segment_bytes=1 << 10).close()
    first, *others = segment_paths(tmp_path)
    assert len(others) == 3
    os.truncate(first, first.stat().st_size - 200)
    ids, _, recovery = read(tmp_path)
    assert ids == names(1, 2, 3)
    assert "the end of the segment" in recovery.damaged[0]


def test_a_newer_log_is_refused(tmp_path):
    path = tmp_path / "segment-000000000000000.arrow"
    schema = SEGMENT_SCHEMA.with_metadata({**SEGMENT_SCHEMA.metadata, b"archer.log": b"9"})
    path.write_bytes(schema.serialize())
    with pytest.raises(LogError, match=r"log b'9'.*use the version of ArCHer that wrote it"):
        read(tmp_path)


def test_a_log_of_another_episode_schema_is_refused_and_left_alone(tmp_path):
    write(tmp_path, 1).close()
    (path,) = tmp_path.iterdir()
    later = SEGMENT_SCHEMA.with_metadata({**SEGMENT_SCHEMA.metadata, b"version": b"2"})
    data = later.serialize().to_pybytes() + path.read_bytes()[SEGMENT_SCHEMA.serialize().size :]
    path.write_bytes(data)
    with pytest.raises(LogError, match=r"episode schema b'2', this ArCHer reads b'1'"):
        read(tmp_path)
    assert path.read_bytes() == data


@pytest.fixture
def file_size_limit():
    """Limit the size of files, so that the kernel fails a write in the middle as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_refuses_the_append_and_leaves_the_log_as_it_was(tmp_path, file_size_limit):
    log = write(tmp_path, 2)
    size = log.size
    file_size_limit(size + 1500)  # room for a part of the next batch
    with pytest.raises(DiskFullError, match=r"no room.*nothing was stored"):
        log.append(make_batch(range(6, 9)), 6, 20)
    assert log.size == segment_paths(tmp_path)[0].stat().st_size == size
    file_size_limit(resource.RLIM_INFINITY)
    log.append(make_batch(range(6, 9)), 6, 20)
    ids, _, recovery = read(tmp_path)
    assert ids == names(0, 1, 2)
    assert recovery == Recovery()


def test_a_disk_full_from_the_start_leaves_no_rows(tmp_path, file_size_limit):
    file_size_limit(100)
    with pytest.raises(DiskFullError):
        write(tmp_path, 1)
    file_size_limit(resource.RLIM_INFINITY)
    assert read(tmp_path)[0] == []


def test_segments_of_evicted_rows_are_dropped_and_checkpoints_keep_theirs(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "checkpoint").mkdir()
    log = write(tmp_path / "log", 4, segment_bytes=1 << 10)
    log.link_to(tmp_path / "checkpoint")
    for path in segment_paths(tmp_path / "log"):
        assert path.samefile(tmp_path / "checkpoint" / path.name)
    assert log.drop_before(2) is None
    assert log.drop_before(8) == 6
    assert read(tmp_path / "log")[0] == names(2, 3)
    log.append(make_batch(range(12, 15)), 12, 40)
    assert read(tmp_path / "log")[0] == names(2, 3, 4)
    assert read(tmp_path / "checkpoint")[0] == names(0, 1, 2, 3)


def test_the_rows_that_a_checkpoint_does_not_hold_are_those_appended_after_it(tmp_path):
    live, checkpoint = tmp_path / "live", tmp_path / "checkpoint"
    (checkpoint / "shard-0").mkdir(parents=True)
    (live / "shard-0").mkdir(parents=True)
    log = write(live / "shard-0", 2)
    log.link_to(checkpoint / "shard-0")
    assert list(read_episodes(live, after=checkpoint)) == []
    append(log, 2, 3)
    later = [name for batch in read_episodes(live, after=checkpoint) for name in batch["episode_id"].to_pylist()]
    assert later == names(2, 3)


def test_a_checkpoint_is_never_restored_onto_itself(tmp_path):
    begin(tmp_path, 1)
    with pytest.raises(ReplayError, match="is the checkpoint itself"):
        restore_checkpoint(tmp_path, tmp_path)


def test_an_interrupted_checkpoint_is_not_taken_for_a_whole_one(tmp_path):
    (tmp_path / "part" / "shard-0").mkdir(parents=True)
    with pytest.raises(LogError, match=r"holds no replay to restore \(replay\.json is missing\)"):
        restore_checkpoint(tmp_path / "part", tmp_path / "live")
