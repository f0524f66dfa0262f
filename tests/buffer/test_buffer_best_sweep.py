"""The best share and the sweep over two shards and a limiter as Ray actors, against plain Python."""

import dataclasses
import math
import threading

import numpy as np
import pytest
from replay_cases import assert_same, ids, kill, make_episode, settled

from buffer.config import ReplayConfig
from buffer.episodes.schema import Episode, episodes_to_batch
from buffer.errors import EmptyViewError, ReplayTimeout
from buffer.placement import shard_of
from buffer.sampling.request import SampleRequest
from buffer.service import ReplayService

pytestmark = pytest.mark.usefixtures("ray_cluster")


def start(directory, *, restore=False, **settings) -> ReplayService:
    config = ReplayConfig(**{"shards": 2, "timeout_s": 60, **settings})
    return ReplayService.start(config, directory=directory, seed=7, restore=restore)


def build(index: int, **kwargs) -> Episode:
    """Return an episode with one of few seeds, so that ids decide the order among them."""
    return dataclasses.replace(make_episode(index, **kwargs), seed=index % 3)


def names(episodes) -> list[str]:
    return [episode.episode_id for episode in episodes]


def ordered(episodes) -> list[str]:
    return names(sorted(episodes, key=lambda episode: (episode.seed, episode.episode_id)))


def best_of(episodes, best: float) -> set[str]:
    least = sorted((e.ret for e in episodes), reverse=True)[math.ceil(round(best * len(episodes), 6)) - 1]
    return {e.episode_id for e in episodes if e.ret >= least}


def drawn(client, **kwargs) -> set[str]:
    """Return all ids that can be drawn: 3000 draws of at most 60 episodes miss none."""
    return {e.episode_id for e in client.sample(SampleRequest(3000, unit="episode", **kwargs)).distinct}


# Demonstrations have the highest returns, so that a view that wrongly includes them is detected. Returns tie by fours.
DEMONSTRATIONS = [build(i, version=-1, ret=10.0 + i) for i in range(10)]
OLD = [build(i, version=0, ret=float(i // 4)) for i in range(10, 40)]
NEW = [build(i, version=4, ret=float(-i)) for i in range(40, 60)]
EVERYTHING = DEMONSTRATIONS + OLD + NEW


@pytest.fixture(scope="module")
def service(ray_cluster, tmp_path_factory):
    service = start(tmp_path_factory.mktemp("replay") / "live")
    service.client().append(episodes_to_batch(EVERYTHING))
    yield service
    service.stop()


@pytest.mark.parametrize("best", [0.001, 0.1, 0.15, 0.25, 0.5, 0.99, 1.0])
def test_the_best_share_is_that_of_the_whole_replay(service, best):
    client = service.client()
    assert drawn(client, best=best) == best_of(EVERYTHING, best)
    assert drawn(client, best=best, view="actor", min_version=0) == best_of(OLD + NEW, best)
    assert drawn(client, best=best, view="actor", min_version=1) == best_of(NEW, best)


def test_a_shard_without_any_of_the_best_gives_none(service):
    """If each shard computed its own bound, both would be drawn from."""
    (best,) = best_of(EVERYTHING, 0.001)
    (other,) = {0, 1} - {shard_of(best, 2)}
    assert any(shard_of(e.episode_id, 2) == other for e in EVERYTHING)
    assert drawn(service.client(), best=0.001) == {best}


def test_all_that_tie_at_the_bound_count(service):
    """Of the 50 episodes that policies wrote, the best two have return 9; four share it."""
    share = drawn(service.client(), view="actor", min_version=0, best=0.04)
    assert share == {"e36", "e37", "e38", "e39"}
    assert {shard_of(name, 2) for name in share} == {0, 1}


def test_turns_of_the_best_share_are_equally_likely_over_both_shards(service):
    client = service.client(seed=3)
    share = best_of(OLD + NEW, 0.3)
    cells = {(e.episode_id, t): 0 for e in OLD + NEW if e.episode_id in share for t in range(e.turns)}
    assert {shard_of(name, 2) for name, _ in cells} == {0, 1}
    for _ in range(5):
        sample = client.sample(SampleRequest(2000, view="actor", min_version=0, best=0.3))
        for episode, turn in zip(sample.episodes, sample.turns.tolist(), strict=True):
            cells[episode.episode_id, turn] += 1
    observed, expected = np.array(list(cells.values())), 10_000 / len(cells)
    freedom = len(cells) - 1
    assert abs(((observed - expected) ** 2 / expected).sum() - freedom) < 5 * np.sqrt(2 * freedom)


def test_the_best_of_everything_is_drawn_as_everything_is(service):
    for unit in ("turn", "episode"):
        whole = service.client(seed=8).sample(SampleRequest(100, unit=unit))
        best = service.client(seed=8).sample(SampleRequest(100, unit=unit, best=1.0))
        assert names(best.episodes) == names(whole.episodes)
        assert best.turns.tolist() == whole.turns.tolist()


def test_a_sweep_gives_each_episode_once_in_order_and_counts_its_turns(service):
    client = service.client()
    assert {shard_of(e.episode_id, 2) for e in EVERYTHING} == {0, 1}
    rng = client.state_dict()
    for episodes, view in (
        (EVERYTHING, {}),
        (OLD + NEW, {"view": "actor", "min_version": 0}),
        (NEW, {"view": "actor", "min_version": 3}),
    ):
        before = settled(client).sampled_turns
        swept = client.sweep(**view, messages=True)
        assert names(swept) == ordered(episodes)
        known = {e.episode_id: e for e in episodes}
        for episode in swept:
            assert_same(episode, known[episode.episode_id])
        assert settled(client).sampled_turns == before + sum(e.turns for e in episodes)
    assert [e.messages for e in client.sweep()] == [[]] * len(EVERYTHING)
    assert client.state_dict() == rng


def test_an_empty_view_is_refused_and_not_counted(service):
    client = service.client()
    before = settled(client).sampled_turns
    for call in (client.sweep, lambda **kwargs: client.sample(SampleRequest(5, best=0.5, **kwargs))):
        with pytest.raises(EmptyViewError, match="every token of version 5 or later; collect before"):
            call(view="actor", min_version=5)
    assert settled(client).sampled_turns == before


def test_bad_arguments_are_refused_before_anything_is_asked(service):
    client = service.client()
    before = settled(client).sampled_turns
    for best in (0, -1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"best=.*above 0 and at most 1"):
            client.sample(SampleRequest(5, best=best))
    with pytest.raises(ValueError, match="no view 'best'"):
        client.sweep(view="best")
    for view, min_version in (("actor", None), ("critic", 2)):
        with pytest.raises(ValueError, match="the actor view takes one"):
            client.sweep(view=view, min_version=min_version)
    assert settled(client).sampled_turns == before


def test_the_bound_follows_appends_evictions_deaths_and_restarts(tmp_path):
    """The same client samples after each of them; the expected share follows from the ids that the shards hold."""
    service = start(tmp_path / "live", capacity_turns=120)
    client = service.client(seed=1)
    known: dict[str, Episode] = {}

    def held() -> list[Episode]:
        return [known[name] for shard in ids(service) for name in shard]

    def check() -> list[str]:
        for best in (0.1, 0.5, 1.0):
            assert drawn(client, best=best) == best_of(held(), best)
        swept = client.sweep()
        assert names(swept) == ordered(held())
        return names(swept)

    # Returns rise, then fall: first the newest rows are the best, then those that are evicted next.
    for first in range(0, 120, 20):
        episodes = [build(i, ret=float(i if i < 60 else -i)) for i in range(first, first + 20)]
        known |= {episode.episode_id: episode for episode in episodes}
        client.append(episodes_to_batch(episodes))
        last = check()
    assert client.stats().evicted > 0
    rng = client.state_dict()
    sample = client.sample(SampleRequest(50, best=0.2))
    for shard in service.shards:
        kill(shard)
        assert check() == last
    service.stop()

    service = start(tmp_path / "live", capacity_turns=120, restore=True)
    client = service.client()
    assert check() == last
    client.load_state_dict(rng)
    again = client.sample(SampleRequest(50, best=0.2))
    assert names(again.episodes) == names(sample.episodes)
    assert again.turns.tolist() == sample.turns.tolist()
    service.stop()


def test_sweeps_of_many_batches_while_episodes_arrive(tmp_path):
    service = start(tmp_path / "live", durability="memory")
    client = service.client()
    client.append(episodes_to_batch([build(i, turns=1) for i in range(600)]))
    stop = threading.Event()
    appended = list(range(600))

    def write() -> None:
        while not stop.is_set():
            indices = range(len(appended), len(appended) + 10)
            service.client().append(episodes_to_batch([build(i, turns=1) for i in indices]))
            appended.extend(indices)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            before = set(appended)
            swept = [int(name[1:]) for name in names(client.sweep())]
            assert len(swept) == len(set(swept))
            assert before <= set(swept)
    finally:
        stop.set()
        writer.join(timeout=60)
    assert not writer.is_alive()
    assert sorted(int(name[1:]) for name in names(client.sweep())) == appended
    service.stop()


def test_one_sweep_for_each_insert_runs_for_ever_and_a_second_waits(tmp_path):
    """An on-policy loop with one sampled turn per inserted one; a sweep larger than the error buffer does not block."""
    service = start(tmp_path / "live", actor={"samples_per_insert": 1, "error_buffer": 5}, durability="memory")
    client = service.client()
    for version in range(4):
        episodes = [build(i, version=version) for i in range(10 * version, 10 * version + 10)]
        client.append(episodes_to_batch(episodes))
        assert names(client.sweep(view="actor", min_version=version)) == ordered(episodes)
        stats = client.stats()
        assert stats.sampled_turns == stats.inserted_turns
    client.sweep(view="actor", min_version=3)
    with pytest.raises(ReplayTimeout, match="sampling waits for inserting: 120 turns inserted, 150 sampled"):
        client.sweep(view="actor", min_version=3, timeout_s=0.3)
    # A sweep that trains nothing is outside of the limit.
    assert len(client.sweep(view="actor", min_version=3, timeout_s=0.3, counted=False)) == 10
    assert client.stats().sampled_turns == 150
    # The other view has its own limiter, which is unbounded here.
    assert len(client.sweep(timeout_s=0.3)) == 40
    service.stop()
