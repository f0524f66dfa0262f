"""The episode table: round trips without loss or copy, and refusals that say what is wrong."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from replay_cases import assert_same, make_batch, make_episode

from buffer.episodes.schema import EPISODE_SCHEMA, batch_to_episodes, episodes_to_batch
from buffer.episodes.validation import validate
from buffer.episodes.wire import WIRE_SCHEMA, to_lists, to_wire
from buffer.errors import SchemaError


def test_round_trip_keeps_every_field():
    episodes = [make_episode(i) for i in range(12)]
    batch = episodes_to_batch(episodes)
    assert batch.schema.equals(EPISODE_SCHEMA, check_metadata=True)
    validate(batch)
    for got, want in zip(batch_to_episodes(batch), episodes, strict=True):
        assert_same(got, want)
        assert got.created_at == want.created_at


def test_slice_reads_its_own_rows():
    part = make_batch(range(10)).slice(4, 3)
    validate(part)
    for got, index in zip(batch_to_episodes(part), (4, 5, 6), strict=True):
        assert_same(got, make_episode(index))


def test_states_and_return():
    episode = make_episode(4)
    assert episode.turns == 5
    assert episode.ret == pytest.approx(float(episode.reward.astype(np.float64).sum()))
    assert [episode.state_end(t) for t in range(5)] == episode.action_start.tolist()
    assert episode.state_end(5) == len(episode.tokens)
    with pytest.raises(IndexError, match="states 0 to 5"):
        episode.state_end(6)


def test_episodes_are_read_only_views():
    batch = make_batch(range(3))
    tokens = batch_to_episodes(batch)[1].tokens
    assert np.shares_memory(tokens, batch.column("tokens").values.to_numpy())
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 1


@pytest.mark.parametrize("part", [slice(0, 6), slice(2, 5), slice(3, 3)])
def test_wire_layout_is_the_same_rows_over_the_same_memory(part):
    batch = make_batch(range(6)).slice(part.start, part.stop - part.start)
    wire = to_wire(batch)
    assert wire.schema.equals(WIRE_SCHEMA, check_metadata=True)
    assert to_lists(wire).equals(batch)
    if batch.num_rows:
        assert wire.column("tokens").buffers()[2].address == batch.column("tokens").values.buffers()[1].address


def test_taken_wire_rows_are_those_rows():
    batch = make_batch(range(9))
    rows = pa.array([7, 0, 3])
    assert to_lists(to_wire(batch).take(rows)).equals(batch.take(rows))


def bad(**changes) -> pa.RecordBatch:
    return episodes_to_batch([make_episode(1), replace(make_episode(3), **changes), make_episode(2)])


GOOD = make_episode(3)  # four turns


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (bad(reward=np.array([0, np.nan, 0, 0], np.float32)), r"'e3'.*reward\[1\] is nan"),
        (bad(logprobs=np.full(len(GOOD.logprobs), np.nan, np.float32)), r"'e3'.*logprobs\[0\] is nan"),
        (bad(versions=np.full(len(GOOD.versions), -2, np.int32)), r"'e3'.*versions\[0\] is -2"),
        (bad(logprobs=GOOD.logprobs[:-1]), r"'e3'.*one per action token"),
        (bad(versions=np.append(GOOD.versions, 0)), r"'e3'.*one per action token"),
        (bad(reward=GOOD.reward[:-1]), r"'e3'.*4 action_start but 3 reward"),
        (bad(action_start=GOOD.action_start[::-1], action_end=GOOD.action_end[::-1]), r"'e3'.*must rise"),
        (bad(action_end=GOOD.action_start), r"'e3'.*empty"),
        (bad(action_start=GOOD.action_start - GOOD.action_start[0]), r"'e3'.*at least one token of state"),
        (bad(tokens=GOOD.tokens[: GOOD.action_end[-1] - 1]), r"'e3'.*beyond the episode's tokens"),
        (bad(tokens=-GOOD.tokens - 1), r"'e3'.*tokens\[0\].*token id"),
        (bad(terminated=True, truncated=True), r"'e3'.*both terminated and truncated"),
        (bad(episode_id=""), r"episode_id is empty"),
        (
            bad(
                tokens=np.empty(0, np.int32),
                action_start=np.empty(0, np.int32),
                action_end=np.empty(0, np.int32),
                reward=np.empty(0, np.float32),
                logprobs=np.empty(0, np.float32),
                versions=np.empty(0, np.int32),
            ),
            r"'e3'.*no turns",
        ),
    ],
)
def test_bad_rows_are_named(batch, message):
    with pytest.raises(SchemaError, match=message):
        validate(batch)


def test_wrong_tables_are_refused():
    batch = make_batch(range(2))
    with pytest.raises(SchemaError, match="version None"):
        validate(batch.replace_schema_metadata(None))
    with pytest.raises(SchemaError, match="version b'2'"):
        validate(batch.replace_schema_metadata({b"version": b"2"}))
    with pytest.raises(SchemaError, match=r"'reward'.*missing"):
        validate(batch.select([name for name in EPISODE_SCHEMA.names if name != "reward"]))
    with pytest.raises(SchemaError, match="'tokens' is binary, not list"):
        validate(to_wire(batch))
    with pytest.raises(SchemaError, match="in this order"):
        validate(batch.select(list(reversed(EPISODE_SCHEMA.names))))


def test_nulls_are_refused_but_in_success():
    batch = make_batch(range(3))
    columns = batch.columns
    columns[EPISODE_SCHEMA.get_field_index("worker")] = pa.array(["a", None, "c"])
    with pytest.raises(SchemaError, match=r"'e1'.*worker is null"):
        validate(pa.RecordBatch.from_arrays(columns, schema=EPISODE_SCHEMA))


def test_float_tokens_are_refused_before_a_batch_is_built():
    with pytest.raises(SchemaError, match="tokens holds float64"):
        episodes_to_batch([replace(GOOD, tokens=GOOD.tokens.astype(float))])


def test_a_very_long_episode_is_taken():
    episode = replace(make_episode(0, turns=1), tokens=np.ones(100_000, np.int32))
    batch = episodes_to_batch([episode])
    validate(batch)
    assert len(batch_to_episodes(to_lists(to_wire(batch)))[0].tokens) == 100_000


def test_whole_rewards_first_leave_later_fractions_alone():
    whole = replace(GOOD, episode_id="whole", reward=np.arange(len(GOOD.reward)))
    batch = episodes_to_batch([whole, replace(GOOD, reward=GOOD.reward + np.float32(0.25))])
    validate(batch)
    first, then = batch_to_episodes(batch)
    np.testing.assert_array_equal(first.reward, whole.reward)
    np.testing.assert_array_equal(then.reward, GOOD.reward + np.float32(0.25))
