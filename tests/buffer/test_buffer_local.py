"""The replay in the process of its client: the samples of the service, without Ray."""

import subprocess
import sys

import numpy as np
import pytest
from replay_cases import assert_same, make_batch, make_episode

from buffer.client.local_client import LocalClient
from buffer.config import ReplayConfig, ViewLimit
from buffer.errors import EmptyViewError, LogError, ReplayTimeout, SchemaError
from buffer.log.folders import Manifest, write_manifest
from buffer.sampling.request import SampleRequest
from buffer.service import ReplayService


def client_of(folder, *, seed=0, restore=None, **settings):
    return LocalClient(ReplayConfig(**settings), folder, seed=seed, restore=restore)


def test_what_is_appended_is_sampled_swept_and_evicted(tmp_path):
    client = client_of(tmp_path, capacity_turns=40)
    with pytest.raises(EmptyViewError, match="no episode"):
        client.sample(SampleRequest(1))
    assert client.append_all([make_batch(range(4)), make_batch(range(2, 8))]) == 8
    assert client.append(make_batch([3], version=9)) == 0
    with pytest.raises(SchemaError):
        client.append(make_batch([9]).slice(0, 0).drop_columns(["tokens"]))
    for episode in client.sweep(messages=True):
        assert_same(episode, make_episode(int(episode.episode_id[1:])))
    sample = client.sample(SampleRequest(5000, unit="turn"))
    turns = {f"e{i}": 1 + i % 5 for i in range(8)}
    counts = np.unique([e.episode_id for e in sample.episodes], return_counts=True)
    for name, count in zip(*counts, strict=True):
        assert abs(count / 5000 - turns[name] / sum(turns.values())) < 0.03
    stats = client.stats()
    assert (stats.episodes, stats.inserted_turns, stats.evicted) == (8, sum(turns.values()), 0)
    assert stats.sampled_turns == 5000 + sum(turns.values())
    client.append(make_batch(range(20, 30)))
    assert client.stats().turns <= 40
    assert client.stats().evicted > 0
    best = client.sample(SampleRequest(50, unit="episode", best=0.2)).episodes
    least = sorted(episode.ret for episode in client.sweep())[-3:][0]
    assert min(episode.ret for episode in best) >= least - 1e-6


def test_priorities_steer_prioritised_samples(tmp_path):
    client = client_of(tmp_path, priority_exponent=1.0)
    client.append(make_batch(range(6), turns=2))
    drawn = client.sample(SampleRequest(200, sampler="prioritised"))
    wanted = np.array([episode.episode_id == "e3" for episode in drawn.episodes])
    assert client.update_priorities(drawn, np.where(wanted, 1.0, 0.0)) == 200
    again = client.sample(SampleRequest(100, sampler="prioritised"))
    assert {episode.episode_id for episode in again.episodes} == {"e3"}


def test_one_seed_draws_the_same_samples(tmp_path):
    drawn = []
    for number in range(2):
        client = client_of(tmp_path / str(number), seed=4)
        client.append(make_batch(range(30)))
        drawn.append([client.sample(SampleRequest(16, unit=unit)) for unit in ("turn", "episode")])
    for one, other in zip(*drawn, strict=True):
        assert [e.episode_id for e in one.episodes] == [e.episode_id for e in other.episodes]
        np.testing.assert_array_equal(one.turns, other.turns)


def test_a_checkpoint_restores_rows_counts_and_the_stream(tmp_path):
    client = client_of(tmp_path / "replay", seed=1)
    client.append(make_batch(range(10)))
    client.sample(SampleRequest(7))
    state = client.state_dict()
    client.checkpoint(tmp_path / "checkpoint")
    client.append(make_batch(range(10, 12)))
    client.load_state_dict(state)
    restored = client_of(tmp_path / "again", seed=5, restore=tmp_path / "checkpoint")
    assert restored.stats().episodes == 10
    assert restored.stats().sampled_turns == 7
    restored.append(make_batch(range(10, 12)))
    assert restored.stats() == client.stats()
    restored.load_state_dict(state)
    one, other = (c.sample(SampleRequest(40)) for c in (client, restored))
    assert [e.episode_id for e in one.episodes] == [e.episode_id for e in other.episodes]
    write_manifest(tmp_path / "checkpoint", Manifest(2))
    with pytest.raises(LogError, match="2 shards"):
        client_of(tmp_path / "third", restore=tmp_path / "checkpoint")


def test_what_the_limiter_would_let_wait_is_refused_at_once(tmp_path):
    limit = ViewLimit(samples_per_insert=1.0, min_turns=4, error_buffer=6.0)
    client = client_of(tmp_path, critic=limit)
    client.append(make_batch([40], turns=3))
    with pytest.raises(ReplayTimeout, match=r"3 turns inserted, critic.min_turns=4; waiting does not help"):
        client.sample(SampleRequest(1))
    client.append(make_batch(range(3), turns=4))
    with pytest.raises(ReplayTimeout, match="inserting waits for sampling"):
        client.append(make_batch([9]))
    client.append(make_batch([9], turns=4), limited=False)
    client.sample(SampleRequest(30))
    with pytest.raises(ReplayTimeout, match="sampling waits for inserting"):
        client.sample(SampleRequest(1))


def test_it_imports_no_ray():
    program = "import sys; import buffer.client.local_client; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr


def test_a_service_draws_what_the_local_client_draws(ray_cluster, tmp_path):
    """One seed and one shard give the same samples, whether requests travel by Flight or not."""
    service = ReplayService.start(ReplayConfig(shards=1), directory=tmp_path / "service", seed=3)
    local = client_of(tmp_path / "local", seed=3)
    for client in (service.client(), local):
        client.append(make_batch(range(20)))
    for request in (SampleRequest(12), SampleRequest(5, unit="episode"), SampleRequest(4, best=0.25)):
        one, other = service.client(seed=8).sample(request), client_of(tmp_path / "x", seed=8)
        other.append(make_batch(range(20)))
        drawn = other.sample(request)
        assert [e.episode_id for e in one.episodes] == [e.episode_id for e in drawn.episodes]
        np.testing.assert_array_equal(one.turns, drawn.turns)
        np.testing.assert_allclose(one.probabilities, drawn.probabilities)
    service.stop()
