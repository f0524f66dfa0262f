"""The soak of the replay, small: it finds nothing wrong, and would say so if it did."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from bench.replay_soak import Soaked, _batch, _episode, _wrong, soak
from buffer.episodes.packing import ROW_SCHEMA, pack
from buffer.episodes.schema import episodes_to_batch
from buffer.episodes.wire import to_wire
from buffer.sampling.sample import Draws, Held, Sample


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_shards_killed_under_load_lose_double_and_skew_nothing(tmp_path):
    result = soak(tmp_path / "replay", turns=20_000, seconds=9, shards=3, kill_every=2.6, seed=1)
    assert result.errors == []
    assert result.sound, result
    assert result.kills >= 3
    assert result.turns == 20_000
    assert result.samples > 20


def test_what_is_wrong_is_found():
    sound = Soaked(10, 1, 1.0, 1, 5, 0, 0, 0, 0, 0.3)
    assert sound.sound
    for name in ("wrong", "missing", "repeated", "unknown"):
        assert not replace(sound, **{name: 1}).sound
    assert not replace(sound, chi_square=9.0).sound
    assert not replace(sound, errors=["writer: gone"]).sound


def test_an_episode_that_is_not_what_its_id_says_is_counted():
    template = episodes_to_batch([_episode(index) for index in range(64)])
    packed, bounds = pack(to_wire(_batch(template, 64, 3)))

    def sampled(packed: bytes) -> Sample:
        buffers = [None, pa.py_buffer(bounds.astype(np.int32)), pa.py_buffer(packed)]
        batch = pa.RecordBatch.from_arrays([pa.Array.from_buffers(pa.binary(), 3, buffers)], schema=ROW_SCHEMA)
        rows = np.arange(3, dtype=np.int32)
        draws = Draws(rows, rows, rows.astype(np.int64), np.ones(3), Held())
        return Sample.of_shard(0, [batch], draws)

    assert _wrong(sampled(packed)) == 0
    token = np.array([1], np.int32).tobytes()
    assert _wrong(sampled(packed.tobytes().replace(token, np.array([9], np.int32).tobytes(), 40))) >= 1
