"""`archer record`: scripted episodes in a new folder, and the programs that read them."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pandas
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer
from typer.testing import CliRunner

import envs
from archer.cli import app
from archer.commands.arguments import env_kwargs
from archer.commands.record import record
from archer.config.sections import TinyModelConfig
from archer.driver.demonstrations import texts
from archer.driver.model import build_tiny_model
from archer.errors import ConfigError
from archer.imports.conversations import read_imports
from buffer.episodes.schema import EPISODE_SCHEMA, batch_to_episodes
from buffer.episodes.validation import validate

ENV = "twenty_questions_subset"


def write(out: Path, **changes) -> None:
    record(ENV, out=out, **({"episodes": 12, "skill": 0.3, "seed": 5} | changes))


def test_the_folder_contains_the_scripted_episodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "new" / "folder")
    said = capsys.readouterr().out
    folder = tmp_path / "new" / "folder"
    expected = list(envs.demonstrate(ENV, episodes=12, skill=0.3, seed=5))
    assert read_imports([str(folder)], env=ENV) == expected == read_imports([str(folder / "episodes.parquet")], env=ENV)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["return_mean"] == pytest.approx(sum(d.ret for d in expected) / 12)
    assert summary["return_low"] <= summary["return_mean"] <= summary["return_high"]
    assert summary["success_rate"] == pytest.approx(sum(bool(d.success) for d in expected) / 12)
    assert (summary["env"], summary["skill"], summary["seed"], summary["tokenizer"]) == (ENV, 0.3, 5, "tokenizer")
    assert f"return {summary['return_mean']:.2f} (95% " in said
    assert str(folder / "episodes.parquet") in said


def test_its_tokens_are_those_of_the_tokenizer_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "episodes.parquet").cast(EPISODE_SCHEMA)
    for batch in table.to_batches():
        validate(batch)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / "tokenizer")
    for episode in (episode for batch in table.to_batches() for episode in batch_to_episodes(batch)):
        said = [message["content"] for message in episode.messages]
        assert tokenizer.decode(episode.tokens).splitlines() == said
        actions = [episode.tokens[a:b] for a, b in zip(episode.action_start, episode.action_end, strict=True)]
        assert [tokenizer.decode(action).strip() for action in actions] == said[1::2]


def test_pandas_and_duckdb_read_it(tmp_path: Path) -> None:
    write(tmp_path / "out")
    file = tmp_path / "out" / "episodes.parquet"
    frame = pandas.read_parquet(file)
    assert list(frame.columns) == EPISODE_SCHEMA.names
    query = f"select count(*), sum(list_sum(reward)), max(messages[1].content) from '{file}'"
    assert duckdb.sql(query).fetchall() == [(12, frame["reward"].map(sum).sum(), "Questions:")]


def test_a_models_own_tokenizer(tmp_path: Path) -> None:
    build_tiny_model(["yes no\n" * 40], tmp_path / "model", TinyModelConfig(vocab_size=300), seed=1)
    write(tmp_path / "out", model=str(tmp_path / "model"))
    assert not (tmp_path / "out" / "tokenizer").exists()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    episode = pandas.read_parquet(tmp_path / "out" / "episodes.parquet").iloc[0]
    assert tokenizer.decode(episode["tokens"]) == texts(list(envs.demonstrate(ENV, episodes=1, skill=0.3, seed=5)))[0]


def test_the_same_seed_gives_the_same_episodes_and_arguments_reach_the_environment(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, overrides=["env.kwargs.words=[dog, pen]", "env.kwargs.max_turns=2"])
    one, two = (pandas.read_parquet(tmp_path / name / "episodes.parquet") for name in ("one", "two"))
    columns = [name for name in EPISODE_SCHEMA.names if name != "created_at"]
    assert one[columns].to_json() == two[columns].to_json()
    assert one["reward"].map(len).max() == 2


def test_nested_arguments() -> None:
    given = env_kwargs("twenty_questions", ["env.kwargs.noise.a.b=1", "env.kwargs.noise.a.c=2"])
    assert given == {"noise": {"a": {"b": 1, "c": 2}}}
    with pytest.raises(ConfigError, match=r"`env.kwargs.noise` is 1, which has no keys below it"):
        env_kwargs("twenty_questions", ["env.kwargs.noise=1", "env.kwargs.noise.a=2"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([ENV], ["--out"]),
        (["twenty_question", "--out", "new"], ["did you mean 'twenty_questions'"]),
        ([ENV, "--out", "new", "--episodes", "0"], ["--episodes"]),
        ([ENV, "--out", "new", "--skill", "1.1"], ["--skill"]),
        ([ENV, "--out", "new", "--set", "env.kwargs.nois=0.1"], ["'nois'", "did you mean 'noise'"]),
        ([ENV, "--out", "new", "--set", "seed=3"], ["'seed=3'", "env.kwargs.NAME"]),
        ([ENV, "--out", "new", "--set", "env.kwargs.noise"], ["not of the form key=value"]),
        ([ENV, "--out", "new", "--set", "env.kwargs.noise=0.9"], ["--set: twenty_questions_subset: noise is 0.9"]),
        ([ENV, "--out", "full"], ["already contains something.txt", "--out"]),
        ([ENV, "--out", "full/something.txt"], ["it is a file"]),
        ([ENV, "--out", "new", "--model", "./nowhere"], ["./nowhere", "cannot be loaded"]),
    ],
)
def test_refused_arguments_leave_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something.txt").touch()
    answer = CliRunner().invoke(app, ["record", *arguments])
    assert answer.exit_code != 0
    said = answer.output + str(answer.exception)
    for word in words:
        assert word in said
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["full", "full/something.txt"]


def test_unfinished_episodes_have_another_name_and_an_interrupt_removes_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def interrupt(*_: object) -> None:
        written.extend(path.name for path in (tmp_path / "out").iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr("archer.imports.episode_folder.episodes_to_batch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out")
    assert sorted(written) == [".episodes.parquet.part", "tokenizer"]
    assert not (tmp_path / "out").exists()
