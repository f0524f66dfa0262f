"""Episodes that pandas, DuckDB and pyarrow filtered or rewrote are read back; what does not fit is named."""

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from replay_cases import assert_same, make_batch, make_episode

from buffer.archive import read_archive
from buffer.episodes.schema import EPISODE_SCHEMA, batch_to_episodes
from buffer.errors import ReplayError

KEPT = [1, 2, 4]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "episodes.parquet"
    pq.write_table(pa.Table.from_batches([make_batch(range(5))]), path)
    return path


def by_pandas(path, out):
    frame = pd.read_parquet(path)
    frame["score"] = 1.0
    frame[frame["episode_id"].isin([f"e{index}" for index in KEPT])].to_parquet(out)


def by_duckdb(path, out):
    names = ", ".join(f"'e{index}'" for index in KEPT)
    duckdb.sql(f"copy (select * from '{path}' where episode_id in ({names}) order by episode_id) to '{out}'")


def by_pyarrow(path, out):
    table = pq.read_table(path).take(KEPT)
    wider = {pa.int32(): pa.int64(), pa.float32(): pa.float64()}
    columns = {}
    for field in reversed(list(EPISODE_SCHEMA)):
        column = table.column(field.name)
        if pa.types.is_list(field.type):
            inner = field.type.value_type
            column = column.cast(pa.large_list(wider.get(inner, inner)))
        elif field.type == pa.string():
            column = column.cast(pa.large_string()).dictionary_encode()
        elif field.type == pa.int64():
            column = column.cast(pa.int32())
        columns[field.name] = column
    pq.write_table(pa.table(columns), out)


def by_rows(path, out):
    rows = pq.read_table(path).take(KEPT).to_pylist()
    for row in rows:
        row["messages"] = [{"content": m["content"], "role": m["role"]} for m in row["messages"]]
    with pa.ipc.new_file(str(out), (table := pa.Table.from_pylist(rows)).schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("tool", [by_pandas, by_duckdb, by_pyarrow, by_rows])
def test_a_file_that_another_tool_wrote_is_read_back(path, tmp_path, tool):
    out = tmp_path / ("rewritten.arrow" if tool is by_rows else "rewritten.parquet")
    tool(path, out)
    episodes = [episode for batch in read_archive(out) for episode in batch_to_episodes(batch)]
    assert [episode.episode_id for episode in episodes] == [f"e{index}" for index in KEPT]
    for episode, index in zip(episodes, KEPT, strict=True):
        assert_same(episode, make_episode(index))


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("tokens", [[2**40]] * 5, "column 'tokens' .* does not fit list<item: int32>"),
        ("tokens", [["a"]] * 5, "column 'tokens'"),
        ("reward", ["x"] * 5, "column 'reward'"),
        ("tokens", [None] * 5, "tokens is null"),
        ("reward", [[np.nan]] * 5, "reward"),
    ],
)
def test_what_does_not_fit_is_named_and_never_changed(path, name, values, said):
    table = pq.read_table(path)
    at = table.schema.get_field_index(name)
    pq.write_table(table.set_column(at, name, pa.array(values)), path)
    with pytest.raises(ReplayError, match=said):
        list(read_archive(path))


def test_a_file_of_a_later_version_is_refused(path):
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({b"version": b"2"}), path)
    with pytest.raises(ReplayError, match="episode schema version b'2'"):
        list(read_archive(path))
