"""The program that measures the replay: contenders get what they gave, and what cannot be had is said."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import replay_foreign, replay_shard
from bench.replay import compared
from bench.replay_contenders import ArrowTable, ListActor, Memory, _turns, record_batch
from bench.replay_workload import (
    APPENDED,
    EPISODE_BYTES,
    FIGURES,
    LENGTH,
    TURNS,
    Contender,
    Unit,
    Work,
    batches,
    fill,
    numbered,
    sampled,
    template,
)
from buffer.episodes.schema import batch_to_episodes
from buffer.episodes.validation import validate

WORK = Work(turns=3 * APPENDED * TURNS, seconds=0.01, repeats=1, seed=0)


def test_the_rows_are_valid_and_numbered():
    first, second, *_ = batches(WORK)
    batch = record_batch(second)
    validate(batch)
    episodes = batch_to_episodes(batch)
    assert [int(episode.tokens[0]) for episode in episodes] == list(range(APPENDED, 2 * APPENDED))
    assert len({episode.episode_id for episode in episodes}) == APPENDED
    assert all(episode.turns == TURNS for episode in episodes)
    assert (first["tokens"][:, 1:] == second["tokens"][:, 1:]).all()


@pytest.mark.parametrize("make", [lambda: ArrowTable(0), lambda: Memory(WORK.turns, 0)])
def test_contenders_in_process_have_every_figure(make: Any):
    contender = make()
    row = {**fill(contender, WORK), **sampled(contender, WORK)}
    assert set(row) == set(FIGURES)
    assert all(row[name] > 0 for name in ("append", "episode_call", "turn_call"))
    assert row["episode_stream"] is row["turn_stream"] is None


def test_lists_hold_the_same_tokens():
    columns = {name: column[3] for name, column in numbered(template(0), 5).items()}
    turns = _turns(columns)
    assert [token for turn in turns for token in turn["observation"] + turn["action"]] == columns["tokens"].tolist()
    assert [value for turn in turns for value in turn["versions"]] == columns["versions"].tolist()
    actor = ListActor(0)
    actor.append([turns])
    drawn, positions = actor.sample("turn")
    assert all(episode is turns for episode in drawn)
    assert len(drawn) == len(positions)


class Wrong(Contender):
    """Gives back something else than it was given."""

    def __init__(self, tokens: np.ndarray) -> None:
        self._tokens = tokens

    def prepare(self, columns: Any) -> Any:
        return columns

    def append(self, batch: Any) -> None:
        return

    def sample(self, unit: Unit) -> Any:
        return [self._tokens]

    def tokens(self, sample: Any) -> Iterable[np.ndarray]:
        return sample


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (template(0)["tokens"][0, 1:], rf"shape \({LENGTH - 1},\)"),
        (numbered(template(0), 0)["tokens"][5] * [1, *[2] * (LENGTH - 1)], "episode 5 came back with other tokens"),
    ],
)
def test_a_contender_that_gives_back_something_else_is_refused(tokens: np.ndarray, message: str):
    with pytest.raises(ValueError, match=message):
        sampled(Wrong(tokens), WORK)


def test_what_cannot_be_had_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(replay_foreign, "CACHE", tmp_path)
    foreign = replay_foreign.Foreign("no_such_buffer", "No such", beside_ours=False)
    asked = argparse.Namespace(no_such_buffer_python=None, install=False)
    (row,) = replay_foreign.rows_of(foreign, WORK, asked)
    assert row["note"].startswith("not installed: ")
    (row,) = replay_foreign.run(foreign, Path(sys.executable), WORK)
    assert row["note"].startswith("failed: ")
    (row,) = replay_foreign.run(foreign, tmp_path / "python", WORK)
    assert row["note"].startswith("not run: ")
    ours = {"contender": "ours", **dict.fromkeys(FIGURES, 2.0)}
    assert compared([ours, row])[1]["ratio_append"] is None


def test_each_environment_has_its_own_pins():
    pins = {foreign.package: replay_foreign._pins(foreign) for foreign in replay_foreign.FOREIGN}
    assert any(pin.startswith("torchrl==") for pin in pins["torchrl"])
    assert any(pin.startswith("dm-reverb") for pin in pins["reverb"])
    assert not set(pins["torchrl"]) & set(pins["reverb"])


def test_a_shard_is_measured_at_each_size(tmp_path: Path):
    rows = replay_shard.measure([640, 1500], repeats=2, seed=0, folder=tmp_path)
    assert [row["turns"] for row in rows] == [640, 1920]
    assert set(replay_shard.COLUMNS) == set(rows[0])
    assert rows[1]["bytes_per_turn"] >= EPISODE_BYTES / TURNS
