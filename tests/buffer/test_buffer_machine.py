"""The whole service against a model in plain Python: clients, limiter, and shards that are killed with SIGKILL."""

import shutil
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from replay_cases import assert_same, ids, kill, make_batch, make_episode

from buffer.config import ReplayConfig
from buffer.errors import EmptyViewError, SchemaError
from buffer.placement import shard_of
from buffer.sampling.request import SampleRequest
from buffer.service import ReplayService

PER_SHARD = 40
"""Turns that a shard holds."""


class ServiceAgainstModel(RuleBasedStateMachine):
    """Append, sample, update, evict, crash, checkpoint, restore and grow in any order.

    The model is a list of (index, version) for each shard.
    """

    @initialize()
    def start(self):
        self.root = Path(tempfile.mkdtemp())
        self.model: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self.shards = 2
        self.inserted = 0
        self.next = 0
        self.checkpoints = 0
        self.saved = None
        self.open(restore=False)

    def open(self, *, restore):
        config = ReplayConfig(
            shards=self.shards, capacity_turns=PER_SHARD * self.shards, segment_bytes=8192, timeout_s=60
        )
        self.service = ReplayService.start(config, directory=self.root / "live", seed=1, restore=restore)
        self.client = self.service.client(seed=2)

    def model_append(self, index, version):
        held = self.model[shard_of(f"e{index}", self.shards)]
        held.append((index, version))
        self.inserted += 1
        while len(held) > 1 and sum(make_episode(i).turns for i, _ in held) > PER_SHARD:
            held.pop(0)

    def held(self) -> dict[int, int]:
        """The version of each index held."""
        return dict(row for rows in self.model.values() for row in rows)

    @rule(count=st.integers(1, 20), version=st.integers(-1, 3))
    def append(self, count, version):
        indices = range(self.next, self.next + count)
        self.next += count
        assert self.client.append(make_batch(indices, version=version)) == count
        for index in indices:
            self.model_append(index, version)

    @precondition(lambda self: self.held())
    @rule(data=st.data())
    def append_again(self, data):
        known = data.draw(st.lists(st.sampled_from(sorted(self.held())), min_size=1, max_size=6))
        assert self.client.append(make_batch([*known, self.next])) == 1
        self.model_append(self.next, 0)
        self.next += 1

    @rule()
    def refuse(self):
        with pytest.raises(SchemaError):
            self.client.append(make_batch([self.next]).replace_schema_metadata(None))

    @rule(
        unit=st.sampled_from(["turn", "episode"]),
        sampler=st.sampled_from(["uniform", "prioritised"]),
        min_version=st.sampled_from([None, 0, 2]),
    )
    def sample(self, unit, sampler, min_version):
        held = self.held()
        view = {"view": "critic"} if min_version is None else {"view": "actor", "min_version": min_version}
        matching = [index for index, version in held.items() if min_version is None or version >= min_version]
        # The limiter admits no sample before the first insert.
        if not matching:
            if held:
                with pytest.raises(EmptyViewError):
                    self.client.sample(SampleRequest(5, unit=unit, sampler=sampler, **view))
            return
        sample = self.client.sample(SampleRequest(5, unit=unit, sampler=sampler, messages=True, **view))
        for episode, turn in zip(sample.episodes, sample.turns.tolist(), strict=True):
            index = int(episode.episode_id[1:])
            assert index in matching
            assert_same(episode, make_episode(index, version=held[index]))
            assert turn == -1 if unit == "episode" else 0 <= turn < episode.turns
        if unit == "turn":
            assert self.client.update_priorities(sample, np.linspace(0, 2, 5)) == 5

    @rule(data=st.data())
    def crash(self, data):
        shard = data.draw(st.integers(0, self.shards - 1))
        kill(self.service.shards[shard])

    @precondition(lambda self: self.shards < 4)
    @rule()
    def grow(self):
        self.service.add_shard()
        self.shards += 1
        # An earlier client learns of the new shard only from its next answer.
        self.client = self.service.client(seed=2)

    @rule()
    def checkpoint(self):
        self.checkpoints += 1
        path = self.root / f"checkpoint-{self.checkpoints}"
        self.client.checkpoint(path)
        model = {shard: list(rows) for shard, rows in self.model.items()}
        self.saved = (path, model, self.shards, self.inserted)

    @precondition(lambda self: self.saved)
    @rule()
    def restore(self):
        self.service.stop()
        path, model, self.shards, self.inserted = self.saved
        self.model = defaultdict(list, {shard: list(rows) for shard, rows in model.items()})
        self.open(restore=path)

    @rule()
    def stop_and_go_on(self):
        self.service.stop()
        self.open(restore=True)

    @invariant()
    def same_rows_order_and_counts(self):
        if not hasattr(self, "service"):
            return
        assert ids(self.service) == [[f"e{index}" for index, _ in self.model[shard]] for shard in range(self.shards)]
        stats = self.client.stats()
        assert stats.inserted_episodes == self.inserted
        assert stats.episodes == len(self.held())
        assert stats.evicted == self.inserted - stats.episodes

    def teardown(self):
        if hasattr(self, "service"):
            self.service.stop()
            shutil.rmtree(self.root)


@pytest.mark.usefixtures("ray_cluster")
class TestServiceAgainstModel(ServiceAgainstModel.TestCase):
    settings = settings(
        max_examples=4, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
