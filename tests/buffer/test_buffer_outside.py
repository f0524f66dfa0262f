"""The replay outside Ray: by its token, from its log while it runs, from an export, from a served folder."""

import json
import stat
import subprocess
import sys
import threading
from contextlib import suppress

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.flight as flight
import pyarrow.parquet as pq
import pytest
from replay_cases import assert_same, make_batch, make_episode

from buffer import RemoteClient, SampleRequest
from buffer.archive import export, read_archive
from buffer.config import ReplayConfig
from buffer.episodes.schema import EPISODE_SCHEMA, batch_to_episodes
from buffer.errors import ReplayError
from buffer.flight.discovery_files import read_endpoint, read_token
from buffer.folder_server import served_folder
from buffer.log.write_ahead import segment_paths
from buffer.service import ReplayService


@pytest.fixture(scope="module")
def live(ray_cluster, tmp_path_factory):
    directory = tmp_path_factory.mktemp("replay") / "live"
    config = ReplayConfig(shards=2, timeout_s=60, critic={"samples_per_insert": 4, "error_buffer": 1e6})
    service = ReplayService.start(config, directory=directory, seed=7)
    service.client().append(make_batch(range(60)))
    yield directory, service
    service.stop()


def test_another_process_without_ray_reads_and_appends_by_the_token(live):
    directory, service = live
    program = f"""
import sys
sys.path.insert(0, {str(directory)!r})
from buffer import RemoteClient, SampleRequest
client = RemoteClient.of_folder({str(directory)!r}, seed=3)
sample = client.sample(SampleRequest(200, sampler="prioritised"))
known = client.update_priorities(sample, abs(sample.probabilities))
print(len(client.sweep()), client.counts()["episodes"], known, len({{e.episode_id for e in sample.episodes}}))
print("ray" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    numbers, ray_there = done.stdout.split("\n")[:2]
    assert [int(number) for number in numbers.split()][:3] == [60, 60, 200]
    assert int(numbers.split()[3]) > 30
    assert ray_there == "False"
    outside = RemoteClient.of_folder(directory)
    assert outside.append(make_batch([3, 60, 61])) == 2
    assert service.client().stats().episodes == 62
    outside.close()


def test_without_the_token_nothing_is_answered(live):
    directory, _ = live
    address = read_endpoint(directory / "shard-0")
    for token in ("", "guessed"):
        with pytest.raises(ReplayError, match=r"takes no request without its token.*access\.json"):
            RemoteClient.at([address], token).sample(SampleRequest(1))
    with flight.FlightClient(f"grpc+tcp://{address}") as bare, pytest.raises(flight.FlightUnauthenticatedError):
        list(bare.do_action(flight.Action("stats", b"{}")))
    for path in (directory / "access.json", directory / "shard-0" / "endpoint.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ReplayError, match=r"access\.json does not exist: no replay has run in this folder"):
        RemoteClient.of_folder(directory / "shard-0")


def test_duckdb_and_pandas_read_the_log_while_it_is_written(live):
    """Segments are plain Arrow IPC streams, which need no code of this project."""
    directory, service = live
    stop, written = threading.Event(), [1000]

    def write():
        client = service.client()
        while not stop.is_set():
            client.append(make_batch(range(written[0], written[0] + 4)), limited=False)
            written[0] += 4

    writer = threading.Thread(target=write)
    writer.start()
    try:
        counts = []
        while len(counts) < 5 or counts[-1] == counts[0]:
            batches = []
            for shard in sorted(directory.glob("shard-*")):
                for path in segment_paths(shard):
                    with pa.ipc.open_stream(pa.OSFile(str(path))) as reader, suppress(pa.ArrowInvalid, OSError):
                        batches.extend(reader)  # Reading stops at the append that is under way.
            logged = pa.Table.from_batches(batches)
            # DuckDB finds the table by the name of the variable.
            ((rows, turns),) = duckdb.sql("select count(*), sum(len(action_start)) from logged").fetchall()
            frame = logged.to_pandas()
            assert len(frame) == frame.episode_id.nunique() == rows
            assert int(frame.action_start.map(len).sum()) == turns
            assert frame.messages.map(len).equals(frame.reward.map(len).rename("messages"))
            counts.append(rows)
    finally:
        stop.set()
        writer.join(timeout=60)
    assert counts == sorted(counts)
    assert counts[0] >= 60


def test_an_export_holds_each_episode_once_for_duckdb_and_pandas(live, tmp_path):
    directory, service = live
    wrote = export(directory, tmp_path)
    held = service.client().stats()
    assert (wrote.episodes, wrote.turns, wrote.repeated) == (held.episodes, held.turns, 0)
    path = tmp_path / "episodes.parquet"
    assert duckdb.sql(f"select count(distinct episode_id) from '{path}'").fetchall() == [(held.episodes,)]
    frame = pd.read_parquet(path)
    by_name = frame.set_index("episode_id")
    assert by_name.loc["e7"].tokens.tolist() == make_episode(7).tokens.tolist()
    episodes = {e.episode_id: e for batch in read_archive(tmp_path) for e in batch_to_episodes(batch)}
    for index in range(60):
        assert_same(episodes[f"e{index}"], make_episode(index))


def test_repeated_ids_go_once_and_bad_files_are_named(tmp_path):
    both = tmp_path / "both"
    both.mkdir()
    with pq.ParquetWriter(tmp_path / "twice.parquet", EPISODE_SCHEMA) as writer:
        writer.write_batch(make_batch([1, 2]))
        writer.write_batch(make_batch([2, 3, 3]))
    wrote = export(tmp_path / "twice.parquet", both)
    assert (wrote.episodes, wrote.repeated) == (3, 2)
    (tmp_path / "other.parquet").write_bytes(b"PAR1 nothing of the kind PAR1")
    with pytest.raises(ReplayError, match=r"other\.parquet cannot be read as episodes"):
        list(read_archive(tmp_path / "other.parquet"))
    pq.write_table(pa.table({"a": [1]}), tmp_path / "foreign.parquet")
    with pytest.raises(
        ReplayError, match=r"foreign\.parquet cannot be read as episodes: column 'episode_id' \(string\) is missing"
    ):
        list(read_archive(tmp_path / "foreign.parquet"))
    empty = tmp_path / "empty"
    (empty / "shard-0").mkdir(parents=True)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(ReplayError, match="holds no episode to export"):
        export(empty, out)
    assert list(out.iterdir()) == []


def test_a_folder_is_served_alone_and_takes_no_appends(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    pq.write_table(pa.Table.from_batches([make_batch(range(30))]), folder / "episodes.parquet")
    with served_folder(folder, host="127.0.0.1", port=0, token="secret") as (server, counts):
        assert counts.episodes == 30
        client = RemoteClient.at([f"127.0.0.1:{server.port}"], "secret")
        assert {e.episode_id for e in client.sample(SampleRequest(1000)).distinct} == {f"e{i}" for i in range(30)}
        assert client.sample(SampleRequest(3, unit="episode", messages=True)).episodes[0].messages
        with pytest.raises(ReplayError, match="nothing can be appended"):
            client.append(make_batch([99]))
        with (
            pytest.raises(ReplayError, match=rf"cannot listen on 127\.0\.0\.1:{server.port}, it is taken"),
            served_folder(folder, host="127.0.0.1", port=server.port, token="x"),
        ):
            pass
        client.close()


def test_the_access_file_is_json(live):
    directory, _ = live
    assert json.loads((directory / "access.json").read_text())["token"] == read_token(directory)
