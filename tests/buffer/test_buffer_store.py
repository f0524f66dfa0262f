"""A shard against a model in plain Python, and the uniformity of its draws."""

import copy
import shutil
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from replay_cases import assert_same, held_ids, make_batch, make_episode

from buffer.config import ReplayConfig
from buffer.episodes.packing import unpack
from buffer.errors import DiskFullError, EmptyViewError, SchemaError
from buffer.log.write_ahead import WriteAheadLog
from buffer.metrics import ShardMetrics
from buffer.sampling.request import RowFilter
from buffer.sampling.sample import Sample
from buffer.shard.index import RowIndex
from buffer.shard.shard import Shard
from buffer.shard.store import sample_schema


def open_shard(directory: Path, **settings) -> Shard:
    config = ReplayConfig(**{"shards": 1, "segment_bytes": 8192, **settings})
    return Shard(0, config, directory, ShardMetrics())


def draw(shard: Shard, count: int, *, unit="turn", seed=0, sampler="uniform", messages=False, **bounds) -> Sample:
    only = RowFilter(**bounds)
    return sample_of(*shard.draw(count, unit=unit, only=only, seed=seed, sampler=sampler, messages=messages), messages)


def sample_of(draws, rows, messages: bool) -> Sample:
    batches = list(rows)
    assert all(batch.schema.equals(sample_schema(messages), check_metadata=True) for batch in batches)
    return Sample.of_shard(0, batches, draws)


def numbers(shard: Shard) -> RowIndex:
    with shard.reading() as store:
        return store.index


BOUNDS = st.fixed_dictionaries(
    {"min_version": st.sampled_from([None, 0, 2]), "min_return": st.sampled_from([None, -0.5, make_episode(3).ret])}
)


class ShardAgainstModel(RuleBasedStateMachine):
    """Append, sample, evict, crash, checkpoint and restore in any order; the model is a list of (index, version)."""

    @initialize(capacity=st.integers(5, 60), durability=st.sampled_from(["memory", "flush"]))
    def start(self, capacity, durability):
        self.root = Path(tempfile.mkdtemp())
        self.live = self.root / "live"
        self.settings = {"capacity_turns": capacity, "durability": durability}
        self.capacity = capacity
        self.shard = open_shard(self.live, **self.settings)
        self.model: list[tuple[int, int]] = []
        self.inserted = 0
        self.inserted_turns = 0
        self.next = 0
        self.saved = None
        self.priorities: dict[int, list[float]] = {}
        self.largest = 1.0
        self.kept: tuple[dict[int, list[float]], float] = ({}, 1.0)

    def model_append(self, index, version):
        self.model.append((index, version))
        self.priorities[index] = [self.largest] * make_episode(index).turns
        self.inserted += 1
        self.inserted_turns += make_episode(index).turns
        while len(self.model) > 1 and sum(make_episode(i).turns for i, _ in self.model) > self.capacity:
            self.model.pop(0)

    @rule(count=st.integers(1, 9), version=st.integers(-1, 3))
    def append(self, count, version):
        indices = range(self.next, self.next + count)
        self.next += count
        assert self.shard.append(make_batch(indices, version=version)) == count
        for index in indices:
            self.model_append(index, version)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), version=st.integers(-1, 3))
    def append_again(self, data, version):
        """Known ids change nothing; a new id that occurs twice among them is stored once."""
        known = data.draw(st.lists(st.sampled_from([index for index, _ in self.model]), min_size=1, max_size=4))
        batch = make_batch([*known, self.next, self.next], version=version)
        assert self.shard.append(batch) == 1
        self.model_append(self.next, version)
        self.next += 1

    @rule()
    def refuse(self):
        with pytest.raises(SchemaError):
            self.shard.append(make_batch([self.next]).replace_schema_metadata(None))

    def matching(self, bounds) -> list[int]:
        return [
            index
            for index, version in self.model
            if (bounds["min_version"] is None or version >= bounds["min_version"])
            and (bounds["min_return"] is None or make_episode(index).ret >= bounds["min_return"])
        ]

    @rule(bounds=BOUNDS)
    def sweep(self, bounds):
        matching = self.matching(bounds)
        swept = sample_of(*self.shard.sweep(RowFilter(**bounds), messages=True), True)
        versions = dict(self.model)
        for episode, index in zip(swept.episodes, matching, strict=True):
            assert_same(episode, make_episode(index, version=versions[index]))
        returns = numbers(self.shard).returns(RowFilter(**bounds))
        assert returns.tolist() == [make_episode(index).ret for index in matching]

    @rule(seed=st.integers(0, 2**32), bounds=BOUNDS, unit=st.sampled_from(["turn", "episode"]))
    def sample(self, seed, bounds, unit):
        matching = self.matching(bounds)
        turns = sum(make_episode(i).turns for i in matching)
        held = numbers(self.shard).held(RowFilter(**bounds))
        assert (held.episodes, held.turns) == (len(matching), turns)
        if not matching:
            with pytest.raises(EmptyViewError):
                self.shard.draw(3, unit=unit, only=RowFilter(**bounds), seed=seed)
            return
        sample = draw(self.shard, 7, unit=unit, seed=seed, messages=True, **bounds)
        again = draw(self.shard, 7, unit=unit, seed=seed, **bounds)
        assert [e.episode_id for e in again.episodes] == [e.episode_id for e in sample.episodes]
        assert again.turns.tolist() == sample.turns.tolist()
        versions = dict(self.model)
        for episode, turn in zip(sample.episodes, sample.turns, strict=True):
            index = int(episode.episode_id[1:])
            assert index in matching
            assert_same(episode, make_episode(index, version=versions[index]))
            assert turn == -1 if unit == "episode" else 0 <= turn < episode.turns

    @rule(data=st.data(), priorities=st.lists(st.floats(0, 10), min_size=1, max_size=5))
    def update(self, data, priorities):
        """Priorities of held turns are set, and evicted ones are ignored."""
        if not self.model:
            return
        sample = draw(self.shard, len(priorities), seed=data.draw(st.integers(0, 100)))
        gone = np.array([self.shard.counts().inserted_episodes + 5])
        known = self.shard.update_priorities(
            np.concatenate((sample.seqs, gone)), np.append(sample.turns, 0), np.array([*priorities, 1.0])
        )
        assert known == len(priorities)
        for episode, turn, priority in zip(sample.episodes, sample.turns.tolist(), priorities, strict=True):
            self.priorities[int(episode.episode_id[1:])][turn] = max(priority, 1e-6) ** 0.6
            self.largest = max(self.largest, priority**0.6)

    @rule(bounds=BOUNDS, unit=st.sampled_from(["turn", "episode"]))
    def sample_by_priority(self, bounds, unit):
        matching = self.matching(bounds)
        if not matching:
            return
        sample = draw(self.shard, 5, unit=unit, sampler="prioritised", **bounds)
        total = sum(sum(self.priorities[index]) for index in matching)
        assert numbers(self.shard).held(RowFilter(**bounds), "prioritised").mass == pytest.approx(total)
        for episode, turn, probability in zip(
            sample.episodes, sample.turns.tolist(), sample.probabilities.tolist(), strict=True
        ):
            index = int(episode.episode_id[1:])
            assert index in matching
            mass = sum(self.priorities[index]) if unit == "episode" else self.priorities[index][turn]
            assert probability == pytest.approx(mass / total)

    @precondition(lambda self: self.settings["durability"] == "flush")
    @rule(orderly=st.booleans())
    def crash(self, orderly):
        """A killed process closes nothing, and the next one reads the disk. An orderly end keeps priorities."""
        if orderly:
            self.shard.close()
            self.kept = (copy.deepcopy(self.priorities), self.largest)
        self.shard = open_shard(self.live, **self.settings)
        kept, largest = self.kept
        self.priorities = {i: list(kept.get(i) or [largest] * make_episode(i).turns) for i, _ in self.model}
        self.largest = largest

    @rule()
    def checkpoint(self):
        self.shard.checkpoint(self.root / "checkpoint")
        self.saved = (list(self.model), self.inserted, self.inserted_turns, self.next)
        self.saved_priorities = (copy.deepcopy(self.priorities), self.largest)

    @precondition(lambda self: self.saved)
    @rule()
    def restore(self):
        shutil.rmtree(self.live)
        shutil.copytree(self.root / "checkpoint", self.live)
        self.shard = open_shard(self.live, **self.settings)
        model, self.inserted, self.inserted_turns, self.next = self.saved
        self.model = list(model)
        self.kept = self.saved_priorities
        self.priorities, self.largest = copy.deepcopy(self.saved_priorities)

    @invariant()
    def same_rows_order_and_counts(self):
        if not hasattr(self, "shard"):
            return
        assert held_ids(self.shard) == [f"e{index}" for index, _ in self.model]
        counts = self.shard.counts()
        assert (counts.inserted_episodes, counts.inserted_turns) == (self.inserted, self.inserted_turns)
        assert counts.episodes == len(self.model)
        assert counts.turns == sum(make_episode(index).turns for index, _ in self.model)

    def teardown(self):
        if hasattr(self, "root"):
            shutil.rmtree(self.root)


TestShardAgainstModel = ShardAgainstModel.TestCase
TestShardAgainstModel.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)


def chi_square(observed: np.ndarray) -> float:
    """Return the standardised statistic: about normal(0, 1) if every cell is equally likely."""
    expected = observed.sum() / len(observed)
    freedom = len(observed) - 1
    return float((((observed - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


@pytest.mark.parametrize("appended", [30, 200])
@pytest.mark.parametrize("unit", ["turn", "episode"])
def test_every_held_turn_or_episode_is_equally_likely_also_after_eviction(tmp_path, appended, unit):
    shard = open_shard(tmp_path, capacity_turns=100, durability="memory")
    for first in range(0, appended, 10):
        shard.append(make_batch(range(first, first + 10)))
    held = held_ids(shard)
    turns = {name: make_episode(int(name[1:])).turns for name in held}
    assert (len(held) == appended) == (appended == 30)
    cells = {
        cell: 0
        for name in held
        for cell in ([(name, t) for t in range(turns[name])] if unit == "turn" else [(name, -1)])
    }
    for seed in range(20):
        sample = draw(shard, 1000, unit=unit, seed=seed)
        for episode, turn in zip(sample.episodes, sample.turns.tolist(), strict=True):
            cells[episode.episode_id, turn] += 1
    assert sum(cells.values()) == 20_000
    assert abs(chi_square(np.array(list(cells.values())))) < 5


def test_the_actor_view_is_uniform_over_its_turns_and_never_shows_demonstrations(tmp_path):
    shard = open_shard(tmp_path, durability="memory")
    for first, version in ((0, -1), (20, 1), (40, 2), (60, 0), (80, 3)):
        shard.append(make_batch(range(first, first + 20), version=version))
    cells = {(f"e{i}", t): 0 for i in (*range(40, 60), *range(80, 100)) for t in range(make_episode(i).turns)}
    for seed in range(20):
        sample = draw(shard, 1000, min_version=2, seed=seed)
        for episode, turn in zip(sample.episodes, sample.turns.tolist(), strict=True):
            cells[episode.episode_id, turn] += 1
    assert abs(chi_square(np.array(list(cells.values())))) < 5
    assert "e0" not in {e.episode_id for e in draw(shard, 500, min_version=-1).episodes}


def test_rows_above_a_return_are_drawn_uniformly_by_turn(tmp_path):
    shard = open_shard(tmp_path, durability="memory")
    shard.append(make_batch(range(60)))
    cells = {(f"e{i}", t): 0 for i in range(60) if make_episode(i).ret >= 0.5 for t in range(make_episode(i).turns)}
    assert 20 < len(cells) < 150
    for seed in range(10):
        sample = draw(shard, 1000, min_return=0.5, seed=seed)
        for episode, turn in zip(sample.episodes, sample.turns.tolist(), strict=True):
            cells[episode.episode_id, turn] += 1
    assert abs(chi_square(np.array(list(cells.values())))) < 5


def test_a_filter_that_every_row_passes_draws_as_none_does(tmp_path):
    shard = open_shard(tmp_path, capacity_turns=50)
    shard.append(make_batch(range(40)))
    for unit in ("turn", "episode"):
        filtered, plain = draw(shard, 30, unit=unit, min_return=-1e9), draw(shard, 30, unit=unit)
        assert [e.episode_id for e in filtered.episodes] == [e.episode_id for e in plain.episodes]
        assert filtered.turns.tolist() == plain.turns.tolist()


def test_the_rows_of_a_slice_have_their_own_returns_and_versions(tmp_path):
    """In memory, the values of rows outside the slice follow those of its last row."""
    both = pa.Table.from_batches([make_batch([0, 1], version=3), make_batch([2, 3], version=-1)])
    shard = open_shard(tmp_path, durability="memory")
    shard.append(both.combine_chunks().to_batches()[0].slice(1, 1))
    returns = numbers(shard).returns(RowFilter(min_version=3))
    assert returns.tolist() == [make_episode(1).ret]


def test_a_sweep_comes_in_bounded_batches_and_is_of_its_moment(tmp_path):
    shard = open_shard(tmp_path, capacity_turns=700, durability="memory")
    shard.append(make_batch(range(600), turns=1))
    _, rows = shard.sweep(RowFilter())
    shard.append(make_batch(range(600, 900), turns=1))
    batches = list(rows)
    assert [batch.num_rows for batch in batches] == [256, 256, 88]
    assert [episode.episode_id for batch in batches for episode in unpack(batch)] == [f"e{i}" for i in range(600)]
    assert shard.metrics.registry.get_sample_value("archer_replay_draws_total") == 600


def test_an_episode_larger_than_the_capacity_is_held_alone(tmp_path):
    shard = open_shard(tmp_path, capacity_turns=3)
    shard.append(make_batch(range(4)))
    shard.append(make_batch([4], turns=30))
    assert held_ids(shard) == ["e4"]
    assert held_ids(open_shard(tmp_path, capacity_turns=3)) == ["e4"]


def test_a_full_disk_leaves_the_shard_as_it_was_and_it_goes_on(tmp_path, monkeypatch):
    shard = open_shard(tmp_path)
    shard.append(make_batch(range(5)))
    before = shard.counts()

    def no_room(self, active, parts):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(WriteAheadLog, "_write", no_room)
        with pytest.raises(DiskFullError, match="No space left on device"):
            shard.append(make_batch(range(5, 9)))
    assert shard.counts() == before
    assert shard.append(make_batch(range(5, 9))) == 4
    assert held_ids(open_shard(tmp_path)) == [f"e{i}" for i in range(9)]
    refused = shard.metrics.registry.get_sample_value("archer_replay_refused_appends_total")
    assert refused == 1


def test_the_log_and_the_known_ids_stay_bounded(tmp_path):
    shard = open_shard(tmp_path, capacity_turns=100)
    sizes = []
    for first in range(0, 2000, 20):
        shard.append(make_batch(range(first, first + 20)))
        sizes.append(shard.counts().log_bytes)
    assert max(sizes[50:]) < 2 * max(sizes[:20])
    assert len(list(tmp_path.iterdir())) < 12
    reopened = open_shard(tmp_path, capacity_turns=100)
    assert held_ids(reopened) == held_ids(shard)
    assert reopened.counts().inserted_turns == shard.counts().inserted_turns


def test_samples_come_from_many_versions(tmp_path):
    """A buffer that degenerates to the current batch fails this test."""
    shard = open_shard(tmp_path, capacity_turns=10_000)
    for version in range(10):
        shard.append(make_batch(range(20 * version, 20 * version + 20), version=version))
    seen = [int(episode.versions[0]) for episode in draw(shard, 1000).episodes]
    assert np.bincount(seen, minlength=10).min() > 50


def test_memory_follows_what_is_held(tmp_path):
    """Blocks of evicted rows are freed: a shard that was refilled many times allocates as much as one that was not."""

    def allocated(appends: int) -> int:
        shard = open_shard(tmp_path / str(appends), capacity_turns=30_000, durability="memory")
        batch = make_batch(range(100), turns=300)
        names = batch.schema.get_field_index("episode_id")
        tracemalloc.start()
        for turn in range(appends):
            ids = pa.array([f"{turn}-{i}" for i in range(100)])
            shard.append(batch.set_column(names, "episode_id", ids))
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert shard.counts().episodes == 100
        return size

    assert allocated(40) < 1.25 * allocated(2)


def test_bytes_bound_what_is_held_as_turns_do(tmp_path):
    shard = open_shard(tmp_path, capacity_bytes=20_000, durability="memory")
    for first in range(0, 200, 10):
        shard.append(make_batch(range(first, first + 10)))
    counts = shard.counts()
    assert 15_000 < counts.bytes <= 20_000
    assert held_ids(shard) == [f"e{i}" for i in range(200 - counts.episodes, 200)]
    shard.append(make_batch([200], turns=3000))
    assert held_ids(shard) == ["e200"]
