"""Imported episodes, rendered in the tokens of another tokenizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import envs
from actors.config import RolloutConfig
from archer.commands.import_episodes import import_episodes
from archer.config.sections import TinyModelConfig
from archer.driver.demonstrations import fitting, render, texts
from archer.driver.model import build_tiny_model
from archer.errors import ConfigError
from archer.imports.conversations import read_imports
from archer.imports.episode_folder import write_episodes
from buffer.episodes.schema import Episode, episodes_to_batch
from buffer.log.write_ahead import WriteAheadLog
from learner.feeding.demonstrations import write_demonstrations

ENV = "twenty_questions_subset"
TINY = TinyModelConfig(vocab_size=400, hidden_size=32, layers=1, heads=1, intermediate_size=64)


@pytest.fixture(scope="module")
def demonstrations() -> list[envs.Demonstration]:
    return list(envs.demonstrate(ENV, episodes=6, skill=0.4, seed=3))


@pytest.fixture(scope="module")
def episodes(demonstrations: list[envs.Demonstration], tmp_path_factory: pytest.TempPathFactory) -> list[Episode]:
    folder = tmp_path_factory.mktemp("model")
    build_tiny_model(texts(demonstrations), folder, TINY, seed=0)
    return render(demonstrations, folder, RolloutConfig())


def test_every_kind_of_source_gives_the_conversations_back(
    demonstrations: list[envs.Demonstration], episodes: list[Episode], tmp_path: Path
) -> None:
    batch = episodes_to_batch(episodes)
    write_demonstrations(episodes, tmp_path / "some.arrow")
    pq.write_table(pa.Table.from_batches([batch]), tmp_path / "some.parquet")
    shard = tmp_path / "run" / "replay" / "shard-0"
    shard.mkdir(parents=True)
    log = WriteAheadLog(shard, durability="flush", segment_bytes=1 << 20)
    log.append(batch, 0, 0)
    log.close()
    for source in ("some.arrow", "some.parquet", "run", "run/replay"):
        assert read_imports([str(tmp_path / source)], env=ENV) == demonstrations, source


def test_another_tokenizer_gives_the_same_messages_under_new_ids(
    demonstrations: list[envs.Demonstration], episodes: list[Episode], tmp_path: Path
) -> None:
    write_demonstrations(episodes, tmp_path / "some.arrow")
    twice = read_imports([str(tmp_path / "some.arrow")] * 2, env=ENV)
    build_tiny_model(["yes no\n" * 40], tmp_path / "other", TINY, seed=1)
    rendered = render([*demonstrations, *twice], tmp_path / "other", RolloutConfig(), imported=len(twice))
    assert len({episode.episode_id for episode in rendered}) == 18
    assert {episode.worker for episode in rendered[6:]} == {"import"}
    for mine, theirs in zip(rendered[6:12], episodes, strict=True):
        assert mine.messages == theirs.messages
        np.testing.assert_array_equal(mine.reward, theirs.reward)
        assert set(mine.versions) == {-1}
        assert len(mine.tokens) > len(theirs.tokens)


def test_an_own_environment_is_found_by_either_name_and_few_shot_examples_stay_in_the_observation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_task.py").write_text(
        "from dataclasses import replace\n"
        "from envs.twenty_questions import TwentyQuestions\n\n\n"
        "class Own(TwentyQuestions):\n"
        "    spec = replace(TwentyQuestions.spec, id='my_task')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    few_shot = [
        {"role": "user", "content": "Example: guess."},
        {"role": "assistant", "content": "Is it a pen?"},
        {"role": "user", "content": "Now you."},
    ]
    played = envs.Demonstration(
        env="my_task",
        task_id="t",
        seed=1,
        observations=[few_shot, "No.", "Yes."],
        actions=["Is it a cat?", "Is it a dog?"],
        rewards=[-1.0, 0.0],
        terminated=True,
        truncated=False,
        success=True,
    )
    (tmp_path / "one").mkdir()
    write_episodes([played], tmp_path / "one", tokenizer=None, summary={})
    for name in ("own_task:Own", "my_task"):
        assert read_imports([str(tmp_path / "one")], env=name) == [played]
    import_episodes(tmp_path / "one", out=tmp_path / "two")
    import_episodes(tmp_path / "two", out=tmp_path / "three", env="own_task:Own")
    assert read_imports([str(tmp_path / "three")], env="own_task:Own") == [played]
    with pytest.raises(ConfigError, match="holds episodes of 'my_task'"):
        read_imports([str(tmp_path / "one")], env="twenty_questions")


def test_episodes_beyond_the_window_are_left_out(episodes: list[Episode]) -> None:
    lengths = sorted(episode.state_end(episode.turns - 1) for episode in episodes)
    assert len(fitting(episodes, lengths[2] + 8, 8)) == 3
    assert fitting(episodes, None, 8) == episodes


def test_unreadable_sources_are_named(episodes: list[Episode], tmp_path: Path) -> None:
    write_demonstrations(episodes, tmp_path / "some.arrow")
    (tmp_path / "torn.arrow").write_bytes((tmp_path / "some.arrow").read_bytes()[:500])
    (tmp_path / "text.parquet").write_text("not parquet")
    mute = [Episode(**{**vars(episode), "messages": []}) for episode in episodes]
    write_demonstrations(mute, tmp_path / "mute.arrow")
    for source, env, said in (
        ("nowhere.arrow", ENV, "does not exist"),
        ("torn.arrow", ENV, "cannot be read as episodes"),
        ("text.parquet", ENV, "cannot be read as episodes"),
        (".", ENV, "holds no episodes.parquet and no replay"),
        ("some.arrow", "key_door", "episodes of 'twenty_questions_subset'.*plays 'key_door'"),
        ("mute.arrow", ENV, "0 messages of the assistant"),
    ):
        with pytest.raises(ConfigError, match=said):
            read_imports([str(tmp_path / source)], env=env)
