"""The running service: two shards and a limiter as Ray actors, Arrow Flight, and processes killed with SIGKILL."""

import itertools
import json
import os
import pickle
import resource
import threading
import time
import urllib.request
from collections import Counter

import numpy as np
import pyarrow.flight as flight
import pytest
import ray
from replay_cases import assert_same, ids, inserted, inside, kill, make_batch, make_episode, settled

from buffer.client.remote import RemoteClient
from buffer.config import ReplayConfig
from buffer.errors import DiskFullError, EmptyViewError, LogError, ReplayError, ReplayTimeout, SchemaError
from buffer.limiter.actor import SAVE_DELAY_S
from buffer.log.folders import STATE_FILE, begin
from buffer.log.frames import SEGMENT_SCHEMA
from buffer.log.write_ahead import read_episodes
from buffer.placement import shard_of
from buffer.sampling.request import SampleRequest
from buffer.service import ReplayService

pytestmark = pytest.mark.usefixtures("ray_cluster")


def start(directory, *, restore=False, **settings) -> ReplayService:
    config = ReplayConfig(**{"shards": 2, "timeout_s": 60, **settings})
    return ReplayService.start(config, directory=directory, seed=7, restore=restore)


def metrics_text(service, name) -> str:
    (address,) = [address for _, target, address, _ in service.processes() if target == name]
    return urllib.request.urlopen(f"http://{address}/metrics", timeout=20).read().decode()


@pytest.fixture(scope="module")
def service(ray_cluster, tmp_path_factory):
    service = start(tmp_path_factory.mktemp("replay") / "live")
    service.client().append(make_batch(range(100)))
    service.client().append(make_batch(range(100, 150), version=5))
    yield service
    service.stop()


def test_episodes_live_where_their_hash_says_and_come_back_whole(service):
    for shard, held in enumerate(ids(service)):
        assert held == [f"e{i}" for i in range(150) if shard_of(f"e{i}", 2) == shard]
    sample = service.client().sample(SampleRequest(300, unit="episode", messages=True))
    assert (sample.turns == -1).all()
    for episode in sample.distinct:
        index = int(episode.episode_id[1:])
        assert_same(episode, make_episode(index, version=5 if index >= 100 else 0))
    without = service.client().sample(SampleRequest(1)).episodes[0]
    index = int(without.episode_id[1:])
    assert_same(without, make_episode(index, version=5 if index >= 100 else 0), messages=False)


def test_known_ids_are_stored_once(service):
    before = settled(service.client())
    assert service.client().append(make_batch([3, 3, 77, 149])) == 0
    assert service.client().stats() == before


def test_a_turn_is_equally_likely_wherever_it_lives(service):
    client = service.client(seed=11)
    cells = Counter({(f"e{i}", t): 0 for i in range(150) for t in range(make_episode(i).turns)})
    for _ in range(45):
        sample = client.sample(SampleRequest(1000))
        cells.update((e.episode_id, t) for e, t in zip(sample.episodes, sample.turns.tolist(), strict=True))
    observed = np.array(list(cells.values()))
    assert len(observed) == 450
    expected = observed.sum() / len(observed)
    assert abs((((observed - expected) ** 2) / expected).sum() - 449) < 5 * np.sqrt(2 * 449)


def test_draws_are_in_random_order_over_the_shards(service):
    shards = [shard_of(e.episode_id, 2) for e in service.client(seed=2).sample(SampleRequest(64)).episodes]
    assert 10 < sum(a != b for a, b in itertools.pairwise(shards)) < 54


def test_the_actor_view(service):
    client = service.client()
    assert {
        int(e.episode_id[1:]) >= 100 for e in client.sample(SampleRequest(50, view="actor", min_version=5)).episodes
    } == {True}
    with pytest.raises(EmptyViewError, match="every token of version 6 or later"):
        client.sample(SampleRequest(5, view="actor", min_version=6))
    with pytest.raises(ValueError, match="takes one"):
        client.sample(SampleRequest(5, view="actor"))


def test_a_turn_is_drawn_in_proportion_to_its_priority_wherever_it_lives(tmp_path):
    service = start(tmp_path / "live", priority_exponent=0.5)
    client = service.client()
    client.append(make_batch(range(40)))
    everything = client.sample(SampleRequest(3000))
    priorities = np.array([(int(e.episode_id[1:]) + t) ** 2.0 for e, t in zip(*pairs(everything), strict=True)])
    assert client.update_priorities(everything, priorities) == 3000
    mass = {(f"e{i}", t): max(float(i + t), 1e-3) for i in range(40) for t in range(make_episode(i).turns)}
    assert {(e.episode_id, t) for e, t in zip(*pairs(everything), strict=True)} == set(mass)
    total = sum(mass.values())
    cells: Counter[tuple[str, int]] = Counter(dict.fromkeys(mass, 0))
    for _ in range(20):
        sample = client.sample(SampleRequest(1000, sampler="prioritised"))
        drawn = [(e.episode_id, t) for e, t in zip(*pairs(sample), strict=True)]
        np.testing.assert_allclose(sample.probabilities, [mass[cell] / total for cell in drawn], rtol=1e-9)
        weights = np.array([(len(mass) * mass[cell] / total) ** -0.4 for cell in drawn])
        np.testing.assert_allclose(sample.importance_weights(0.4), weights / weights.max(), rtol=1e-5)
        cells.update(drawn)
    expected = np.array([20_000 * mass[cell] / total for cell in cells])
    some = expected > 5
    statistic = ((np.array(list(cells.values()))[some] - expected[some]) ** 2 / expected[some]).sum()
    assert abs(statistic - some.sum()) < 5 * np.sqrt(2 * some.sum())

    client.checkpoint(tmp_path / "checkpoint")
    state = client.state_dict()
    want = client.sample(SampleRequest(200, sampler="prioritised"))
    client.update_priorities(want, np.full(200, 7.0))
    with pytest.raises(ValueError, match="one for each"):
        client.update_priorities(want, np.ones(3))
    with pytest.raises(ValueError, match="whole episodes"):
        client.update_priorities(client.sample(SampleRequest(2, unit="episode")), np.ones(2))
    with pytest.raises(ReplayError, match="negative, infinite or NaN"):
        client.update_priorities(want, np.full(200, np.nan))
    with pytest.raises(ValueError, match="the samplers are uniform, prioritised"):
        client.sample(SampleRequest(2, sampler="best"))
    service.stop()

    service = start(tmp_path / "live", priority_exponent=0.5, restore=tmp_path / "checkpoint")
    client = service.client()
    client.load_state_dict(state)
    got = client.sample(SampleRequest(200, sampler="prioritised"))
    assert [e.episode_id for e in got.episodes] == [e.episode_id for e in want.episodes]
    np.testing.assert_array_equal(got.turns, want.turns)
    np.testing.assert_array_equal(got.probabilities, want.probabilities)
    service.stop()


def pairs(sample):
    return sample.episodes, sample.turns.tolist()


def test_the_random_stream_is_saved_and_travels_with_the_client(service):
    client = service.client(seed=5)
    client.sample(SampleRequest(10))
    state = json.loads(json.dumps(client.state_dict()))
    first = client.sample(SampleRequest(20))
    other = service.client(seed=99)
    other.load_state_dict(state)
    clone = pickle.loads(pickle.dumps(other))
    for sample in (other.sample(SampleRequest(20)), clone.sample(SampleRequest(20))):
        assert [e.episode_id for e in sample.episodes] == [e.episode_id for e in first.episodes]
        assert sample.turns.tolist() == first.turns.tolist()


def test_a_client_works_in_another_process(service):
    @ray.remote(num_cpus=0)
    def use(client, batch):
        return len(client.sample(SampleRequest(5)).episodes), client.append(batch)

    assert ray.get(use.remote(service.client(), make_batch([1, 2])), timeout=60) == (5, 0)


def test_bad_rows_are_refused_at_the_client_and_at_the_shard(service):
    before = settled(service.client())
    batch = make_batch([500]).replace_schema_metadata(None)
    with pytest.raises(SchemaError, match="version None"):
        service.client().append(batch)
    address = ray.get(service.shards[0].address.remote(), timeout=60)
    options = flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {service.token}".encode())])
    with flight.FlightClient(f"grpc+tcp://{address}") as outside:

        def put():
            writer, answers = outside.do_put(flight.FlightDescriptor.for_path("append"), batch.schema, options)
            with writer:
                writer.write_batch(batch)
                writer.done_writing()
                answers.read()

        with pytest.raises(flight.FlightServerError, match=r"buffer\.episodes\.wire\.to_wire"):
            put()
        with pytest.raises(flight.FlightServerError, match="bad ticket"):
            outside.do_get(flight.Ticket(b"{}"), options).read_all()
    assert service.client().stats() == before


def test_batches_are_appended_one_after_the_other_and_those_behind_a_bad_one_are_not(tmp_path):
    service = start(tmp_path / "live")
    client = service.client()
    batches = [make_batch(range(first, first + 10)) for first in range(0, 400, 10)]
    assert client.append_all(batches[:20]) == 200
    # Some ids are known, one batch is empty, and the batches come from a generator.
    assert client.append_all(iter([*batches[10:30], batches[0].slice(0, 0)])) == 100
    with pytest.raises(SchemaError, match="version None"):
        client.append_all([*batches[30:], batches[0].replace_schema_metadata(None)])
    assert client.stats().episodes == 300
    # Each shard holds its rows in the order of the appends.
    assert ids(service) == [[f"e{i}" for i in range(300) if shard_of(f"e{i}", 2) == shard] for shard in (0, 1)]
    service.stop()


def test_batches_under_way_are_sent_again_when_the_shard_is_killed(tmp_path):
    service = start(tmp_path / "live")
    client = service.client()

    def batches():
        for first in range(0, 4000, 20):
            if first == 1000:
                kill(service.shards[0])
            yield make_batch(range(first, first + 20))

    client.append_all(batches())
    assert ids(service) == [[f"e{i}" for i in range(4000) if shard_of(f"e{i}", 2) == shard] for shard in (0, 1)]
    service.stop()


def test_a_full_disk_is_said_so_and_nothing_is_stored(service):
    """The kernel limits the size of the shard's files, as a full disk would."""
    client = service.client()
    before = settled(client)
    rows = [i for i in range(1000, 1100) if shard_of(f"e{i}", 2) == 0]
    (pid,) = inside(service.shards[:1], lambda _: os.getpid())
    log_bytes = ray.get(service.shards[0].stats.remote(), timeout=60)["log_bytes"]
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE, (log_bytes + 1000, resource.RLIM_INFINITY))
    try:
        with pytest.raises(DiskFullError, match=r"no room under .*nothing was stored"):
            client.append(make_batch(rows))
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert client.stats() == before


def test_failed_samples_are_not_counted(service):
    client = service.client()
    before = settled(client).sampled_turns
    with pytest.raises(EmptyViewError):
        client.sample(SampleRequest(1000, view="actor", min_version=9))
    client.sample(SampleRequest(10))
    assert settled(client).sampled_turns == before + 10


def test_every_process_answers_with_metrics(service):
    service.client().stats()  # the shards report to the limiter first
    found = service.processes()
    assert [(process.role, process.name) for process in found] == [
        ("limiter", "limiter"),
        ("shard", "shard-0"),
        ("shard", "shard-1"),
    ]
    assert all(process.address.startswith("127.0.0.1:") for process in found), "one node: nobody else may connect"
    text = {process.name: metrics_text(service, process.name) for process in found}
    held = [len(held) for held in ids(service)]
    for shard in (0, 1):
        assert f"archer_replay_episodes {float(held[shard])}" in text[f"shard-{shard}"]
    assert "archer_limiter_inserted_turns_total 450.0" in text["limiter"]
    assert 'archer_limiter_blocked_seconds_total{side="insert"} 0.0' in text["limiter"]
    assert all("process_resident_memory_bytes" in page and "_created" not in page for page in text.values())


def test_kill_minus_nine_loses_nothing_acknowledged_and_stores_nothing_twice(tmp_path):
    service = start(tmp_path / "live", critic={"samples_per_insert": 1, "error_buffer": 1e6})
    acknowledged: list[int] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def write():
        client = service.client()
        try:
            while not stop.is_set():
                indices = range(len(acknowledged), len(acknowledged) + 8)
                client.append(make_batch(indices))
                acknowledged.extend(indices)
        except ReplayError as error:
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    client = service.client()
    inserted(client, 40)
    addresses = ray.get([shard.address.remote() for shard in service.shards], timeout=60)
    for shard in (0, 1):
        count = len(acknowledged)
        kill(service.shards[shard])
        assert len(client.sample(SampleRequest(32))) == 32  # waits for the shard to restart
        inserted(client, count + 40)
    stop.set()
    writer.join(timeout=90)
    assert not writer.is_alive()
    assert not failures
    assert ray.get([shard.address.remote() for shard in service.shards], timeout=60) != addresses
    held = [name for shard in ids(service) for name in shard]
    logged = [name for batch in read_episodes(tmp_path / "live") for name in batch.column("episode_id").to_pylist()]
    assert logged == held
    assert Counter(held) == Counter(f"e{i}" for i in acknowledged)
    stats = client.stats()
    assert stats.episodes == stats.inserted_episodes == len(acknowledged) >= 80
    assert stats.turns == stats.inserted_turns == sum(make_episode(i).turns for i in acknowledged)
    assert stats.sampled_turns == 64
    service.stop()


def test_a_checkpoint_is_exact_and_the_log_goes_to_the_last_row(tmp_path):
    service = start(tmp_path / "live", capacity_turns=200)
    client = service.client(seed=3)
    for first in range(0, 120, 20):
        client.append(make_batch(range(first, first + 20)))
    client.sample(SampleRequest(30))
    saved_ids, saved_stats, saved_rng = ids(service), client.stats(), client.state_dict()
    assert saved_stats.evicted > 0
    client.checkpoint(tmp_path / "checkpoint")
    with pytest.raises(ReplayError, match="already holds a checkpoint"):
        client.checkpoint(tmp_path / "checkpoint")
    next_sample = client.sample(SampleRequest(50))
    client.append(make_batch(range(120, 130)))
    last_ids, last_stats = ids(service), client.stats()
    service.stop()
    with pytest.raises(ReplayError, match="already holds a replay"):
        start(tmp_path / "live")
    with pytest.raises(LogError, match=r"has 2 shards, the config asks for 1, which .*; set shards=2 or more"):
        start(tmp_path / "live", shards=1, restore=True)

    service = start(tmp_path / "live", capacity_turns=200, restore=True)
    assert ids(service) == last_ids
    assert service.client().stats() == last_stats
    service.stop()

    service = start(tmp_path / "live", capacity_turns=200, restore=tmp_path / "checkpoint")
    client = service.client()
    assert ids(service) == saved_ids
    assert client.stats() == saved_stats
    client.load_state_dict(saved_rng)
    again = client.sample(SampleRequest(50))
    assert [e.episode_id for e in again.episodes] == [e.episode_id for e in next_sample.episodes]
    assert again.turns.tolist() == next_sample.turns.tolist()
    assert client.append(make_batch(range(120, 130))) == 10
    assert ids(service) == last_ids
    service.stop()


def test_a_limiter_that_has_closed_leaves_the_folder_alone(tmp_path):
    service = start(tmp_path / "live")
    counts = tmp_path / "live" / STATE_FILE
    service.client().append(make_batch(range(10)))
    ray.get([shard.close.remote() for shard in service.shards])
    ray.get(service.limiter.close.remote())
    assert json.loads(counts.read_text())["shards"].keys() == {"0", "1"}
    counts.write_text("the next service's")
    ray.get(service.limiter.count_sampled.remote({"critic": 1}))
    # Longer than the limiter delays its writes.
    time.sleep(3 * SAVE_DELAY_S)
    assert counts.read_text() == "the next service's"
    service.stop()


def test_shards_are_added_while_the_replay_runs_and_when_it_is_restored(tmp_path):
    service = start(tmp_path / "live")
    client, other = service.client(seed=1), service.client(seed=2)
    outside = RemoteClient.of_folder(tmp_path / "live")
    client.append(make_batch(range(100)))
    other.sample(SampleRequest(5))
    outside.sample(SampleRequest(5))
    before = ids(service)
    service.add_shard()
    assert ids(service) == [*before, []]
    assert other.append(make_batch(range(100))) == 0  # although their shard has changed
    assert other.append(make_batch(range(90, 200))) == 100
    held = ids(service)
    assert held[:2] == [
        [*old, *(f"e{i}" for i in range(100, 200) if shard_of(f"e{i}", 3) == shard)] for shard, old in enumerate(before)
    ]
    assert held[2] == [f"e{i}" for i in range(100, 200) if shard_of(f"e{i}", 3) == 2] != []
    cells = Counter({(f"e{i}", t): 0 for i in range(200) for t in range(make_episode(i).turns)})
    client.sample(SampleRequest(1))  # its answer announces the third shard
    for _ in range(40):
        cells.update((e.episode_id, t) for e, t in zip(*pairs(client.sample(SampleRequest(1000))), strict=True))
    observed = np.array(list(cells.values()))
    assert len(observed) == 600
    expected = observed.sum() / 600
    assert abs((((observed - expected) ** 2) / expected).sum() - 599) < 5 * np.sqrt(2 * 599)
    outside.sample(SampleRequest(1))
    assert len(outside.sweep()) == 200
    assert outside.append(make_batch([5, 250])) == 1
    kill(service.limiter)
    kill(service.shards[2])
    assert client.append(make_batch(range(250))) == 50
    client.checkpoint(tmp_path / "checkpoint")
    whole = ids(service)
    service.stop()

    service = start(tmp_path / "other", shards=5, restore=tmp_path / "checkpoint")
    assert ids(service) == [*whole, [], []]
    client = service.client()
    assert client.append(make_batch(range(251))) == 0
    assert client.append(make_batch(range(240, 400))) == 149
    assert Counter(name for held in ids(service) for name in held) == Counter(f"e{i}" for i in range(400))
    assert all(ids(service))
    assert client.stats().episodes == 400
    service.stop()


def test_a_replay_of_another_format_is_refused(tmp_path):
    begin(tmp_path, 2)
    (tmp_path / "replay.json").write_text('{"format": 1, "shards": 2}')
    with pytest.raises(LogError, match="format 1, this ArCHer reads 2; use the version of ArCHer that wrote it"):
        start(tmp_path, restore=True)


def test_each_side_waits_for_the_other_and_says_so(tmp_path):
    service = start(
        tmp_path / "live", critic={"samples_per_insert": 1, "min_turns": 10, "error_buffer": 12}, timeout_s=30
    )
    client = service.client()
    with pytest.raises(ReplayTimeout, match=r"sampling waits for inserting: 0 turns inserted, critic\.min_turns=10"):
        client.sample(SampleRequest(1), timeout_s=0.3)
    assert client.append(make_batch(range(5))) == 5  # 15 turns: 15 - 0 > 12
    done: list[float] = []
    writer = threading.Thread(
        target=lambda: done.append(service.client().append(make_batch(range(5, 10))) and time.monotonic())
    )
    begun = time.monotonic()
    writer.start()
    writer.join(timeout=1.0)
    assert writer.is_alive()
    assert client.append(make_batch([10]), limited=False) == 1  # demonstrations do not wait: 16 turns
    client.sample(SampleRequest(4))
    writer.join(timeout=30)
    assert done
    assert done[0] - begun > 1.0
    text = metrics_text(service, "limiter")
    blocked = [
        line for line in text.splitlines() if line.startswith('archer_limiter_blocked_seconds_total{side="insert"')
    ]
    assert float(blocked[0].split()[-1]) > 0.9
    assert 'archer_limiter_timeouts_total{side="critic"} 1.0' in text
    for _ in range(4):
        client.sample(SampleRequest(12))
    with pytest.raises(ReplayTimeout, match=r"sampling waits for inserting: 31 turns inserted, 52 sampled"):
        client.sample(SampleRequest(1), timeout_s=0.3)
    service.stop()
    with pytest.raises(ReplayError, match="gone for good"):
        client.sample(SampleRequest(1))
    with pytest.raises(ReplayError, match="gone for good"):
        client.append(make_batch([11]), limited=False)


def test_without_a_log_a_killed_shard_comes_back_empty_and_the_counts_stay(tmp_path):
    service = start(tmp_path / "live", durability="memory")
    client = service.client()
    client.append(make_batch(range(40)))
    before = settled(client)
    whole = ids(service)
    kill(service.shards[0])
    assert {shard_of(e.episode_id, 2) for e in client.sample(SampleRequest(64)).episodes} == {1}
    after = client.stats()
    assert after.inserted_turns == before.inserted_turns
    assert ids(service) == [[], whole[1]]
    client.append(make_batch(range(40, 60)))
    kill(service.limiter)  # before it has written its counts, which the shards then report again
    assert inserted(client, 60) == 60
    whole = ids(service)
    client.checkpoint(tmp_path / "checkpoint")
    service.stop()

    service = start(tmp_path / "other", durability="memory", restore=tmp_path / "checkpoint")
    assert ids(service) == whole
    assert service.client().stats().inserted_episodes == 60
    service.stop()


def test_a_shard_that_cannot_read_its_log_says_why(tmp_path):
    begin(tmp_path, 1)
    schema = SEGMENT_SCHEMA.with_metadata({**SEGMENT_SCHEMA.metadata, b"archer.log": b"9"})
    (tmp_path / "shard-0" / "segment-000000000000000.arrow").write_bytes(schema.serialize())
    with pytest.raises(ReplayError, match=r"shard 0 did not start: .*log b'9'.*use the version of ArCHer"):
        start(tmp_path, shards=1, restore=True)
