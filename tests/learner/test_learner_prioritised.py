"""Prioritised draws in the learner: importance weights, and TD errors as new priorities."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from algorithm_cases import OneRank, episodes, make_algorithm
from learner_cases import flat_actions, some_fresh

from buffer.client.remote import RemoteClient
from buffer.episodes.schema import Episode, episodes_to_batch
from buffer.folder_server import served_folder
from learner.algorithms.base import StepResult
from learner.algorithms.targets import n_step_returns
from learner.algorithms.utterance_critic import critic_phases
from learner.config import AlgorithmName, LearnerConfig
from learner.feeding.feeder import Feeder
from learner.passes.rows import Row

METHODS: list[AlgorithmName] = ["archer", "archer_offline", "chai"]
PRIORITISED = {"critic": {"sampler": "prioritised", "importance_exponent": 1.0}}


def critic_step(name: AlgorithmName, rows: list[Row], samples: int, **changes: object) -> StepResult:
    algorithm = make_algorithm(name, **changes)
    phase = algorithm.phases(0)[0]
    assert phase.name == "critic"
    return algorithm.step(phase, [rows[:2], rows[2:]], samples, version=1)


def with_fresh(rows: list[Row], actions: int) -> list[Row]:
    for row in rows:
        samples = range(len(row.turns))
        row.fresh = flat_actions([(row.fresh_at(sample) * actions)[:actions] for sample in samples], -4.0)
    return rows


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("name", METHODS)
def test_a_sample_of_weight_two_counts_as_one_that_stands_twice(name: AlgorithmName) -> None:
    weighted, twice = (with_fresh(episodes(0, 4), 5 if name == "chai" else 2) for _ in range(2))
    for row in weighted:
        row.weights = np.where(np.arange(len(row.turns)) == 1, 2.0, 1.0).astype(np.float32)
    for row in twice:
        row.turns = np.append(row.turns, row.turns[1]).astype(np.int32)
        row.fresh = some_fresh(row, [*range(len(row.turns) - 1), 1])
    samples = sum(len(row.turns) for row in twice)
    by_weight = critic_step(name, weighted, samples, **PRIORITISED)
    by_number = critic_step(name, twice, samples)
    for metric in ("critic/q_loss", "critic/v_loss", "critic/norm"):
        assert by_weight.metrics[metric] == pytest.approx(by_number.metrics[metric], rel=1e-4), metric


@pytest.mark.usefixtures("one_rank")
def test_td_errors_are_those_of_the_targets() -> None:
    """Without bootstrapping (gamma near 0) the target is the reward, and the TD error is |Q - r|."""
    rows = episodes(1, 4)
    settings = {"critic": PRIORITISED["critic"] | {"n_step": 1, "gamma": 1e-9, "heads": 1}}
    result = critic_step("archer", rows, sum(len(row.turns) for row in rows), **settings)
    assert [errors.shape for errors in result.td_errors] == [(12,), (12,)]
    reward, _, _ = n_step_returns(rows, 1, 1e-9)
    squares = np.concatenate(result.td_errors) ** 2
    assert squares.mean() == pytest.approx(result.metrics["critic/q_loss"], rel=1e-4)
    # An untrained Q is small, so the errors are close to the rewards.
    assert np.corrcoef(np.concatenate(result.td_errors), np.abs(reward))[0, 1] > 0.8
    assert len(critic_step("archer", rows, 24).td_errors) == 0


class Served(RemoteClient):
    """A replay that is served from a folder, with the counts that the feeder reads."""

    def stats(self) -> SimpleNamespace:
        return SimpleNamespace(**self.counts())


def _episode(index: int) -> Episode:
    return Episode(
        episode_id=f"e{index}",
        tokens=np.arange(9, dtype=np.int32),
        action_start=np.array([1, 4, 7], np.int32),
        action_end=np.array([2, 5, 8], np.int32),
        reward=np.zeros(3, np.float32),
        logprobs=np.zeros(3, np.float32),
        versions=np.zeros(3, np.int32),
        terminated=True,
        truncated=False,
    )


@pytest.mark.parametrize("unit", ["turn", "episode"])
def test_draws_follow_the_td_errors_that_came_back(tmp_path: Path, unit: str) -> None:
    pq.write_table(pa.Table.from_batches([episodes_to_batch([_episode(i) for i in range(20)])]), tmp_path / "a.parquet")
    with served_folder(tmp_path / "a.parquet", host="127.0.0.1", port=0, token="t") as (server, _):
        replay = Served.at([f"127.0.0.1:{server.port}"], "t")
        config = LearnerConfig(micro_batch=2, prefetch_steps=1)
        feeder = Feeder(replay, SimpleNamespace(stale_error=KeyError), OneRank(), config)  # type: ignore[arg-type]
        changes = {"critic": {"unit": unit, "batch": 20, "steps_per_cycle": 12, **PRIORITISED["critic"]}}
        settings = LearnerConfig.model_validate(changes).critic
        (phase,) = critic_phases(settings, 1, fresh=0)
        drawn: list[Counter[str]] = []
        for batch in feeder.batches(phase, version=0):
            rows = [row for micro_batch in batch.micro_batches for row in micro_batch]
            assert all(len(row.weights) == len(row.turns) for row in rows)
            drawn.append(Counter({row.episode.episode_id: len(row.turns) for row in rows}))
            largest = max(row.weights.max() for row in rows)
            assert largest == pytest.approx(1.0)
            errors = [
                np.concatenate([np.full(len(r.turns), 5.0 if r.episode.episode_id == "e7" else 0.0) for r in rows])
                for rows in batch.micro_batches
            ]
            feeder.update_priorities(batch.micro_batches, errors)
        assert drawn[0]["e7"] < 0.5 * drawn[0].total()
        assert drawn[-1]["e7"] > 0.8 * drawn[-1].total()
        replay.close()
