"""`archer import`: conversations of LMRL-Gym as episodes, and the report on dropped conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pandas
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archer.commands.export import export
from archer.commands.import_episodes import import_episodes
from archer.errors import ConfigError
from archer.imports.conversations import read_imports
from archer.imports.json_items import Dropped
from archer.imports.lmrl import read_lmrl

SAMPLE = Path(__file__).resolve().parents[3] / "shared" / "data" / "lmrl_guess_my_city_sample.json"
ASIA = "Is your city in Asia? No, it is not."
PARIS = "Is it Paris? Yes, it is Paris."


def item(*turns: Any, done: Any = True, word: Any = "paris,france", **more: Any) -> dict[str, Any]:
    return {"conversation": list(turns), "done": done, "word": word} | more


def read(path: Path, env: str = "guess_my_city", **kwargs: Any) -> tuple[list, Dropped]:
    dropped: Dropped = []
    return list(read_lmrl(path, env, kwargs, dropped)), dropped


def write(tmp_path: Path, content: Any) -> Path:
    file = tmp_path / "conversations.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def test_a_won_game_and_one_that_was_not(tmp_path: Path) -> None:
    lost = item(ASIA, "What do people\n speak? French.", done=False)
    (won, cut), dropped = read(write(tmp_path, [item(ASIA, PARIS), lost]))
    assert won.observations == ["Questions:", "No, it is not.", "Yes, it is Paris."]
    assert won.actions == ["Is your city in Asia?", "Is it Paris?"]
    assert (won.rewards, won.terminated, won.truncated, won.success) == ([-1.0, 0.0], True, False, True)
    assert cut.actions == ["Is your city in Asia?", "What do people speak?"]
    assert (cut.rewards, cut.terminated, cut.truncated, cut.success) == ([-1.0, -1.0], False, True, False)
    assert dropped == []
    assert won.task_id == cut.task_id
    assert "aris" not in won.task_id


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (item("Is it big? Yes, Paris is big.", PARIS), "reveals the word before"),
        (item(PARIS, ASIA), "continues after the correct guess"),
        (item(ASIA), "its last question does not guess"),
        (item("Is your city in the Paris region? Yes."), "its last question does not guess"),
        (item(*[ASIA] * 21, done=False), "more turns than the limit of 20"),
        (item("It is in Asia.", PARIS), "without a question mark"),
        (item("", PARIS), "an empty turn"),
        (item("  \n", PARIS), "an empty turn"),
        (item("? Yes."), "without a question"),
        (item("Is it big? "), "without an answer"),
        (item(7, PARIS), "`conversation`: Input should be a valid string"),
        (item(None), "`conversation`: Input should be a valid string"),
        (item("Is it \ud800? No."), "half a surrogate"),
        (item(), "`conversation`: List should have at least 1 item"),
        (item(PARIS, word="atlantis,nowhere"), "unknown to guess_my_city"),
        (item(PARIS, word=""), "`word`: String should match"),
        (item(PARIS, word=float("nan")), "`word`: Input should be a valid string"),
        (item(PARIS, word=[7]), "`word`: Input should be a valid string"),
        (item(PARIS, done="yes"), "`done`: Input should be a valid boolean"),
        (item(PARIS, done=float("nan")), "`done`: Input should be a valid boolean"),
        (item(PARIS, conversation="Is it Paris? Yes."), "`conversation`: Input should be a valid list"),
        (item(PARIS, conversation=None), "`conversation`: Input should be a valid list"),
        ({"conversation": [PARIS], "done": True}, "`word`: Field required"),
        ({}, "`conversation`: Field required"),
        (None, "not a conversation"),
        (float("inf"), "not a conversation"),
        ([item(PARIS)], "not a conversation"),
        (item(ASIA, PARIS), "duplicate"),
    ],
)
def test_unfit_conversations_are_dropped_with_the_reason(tmp_path: Path, bad: Any, reason: str) -> None:
    episodes, ((found, where),) = read(write(tmp_path, [item(ASIA, PARIS), bad, item(PARIS)]))
    assert len(episodes) == 2
    assert reason in found
    assert where.startswith("conversation 1")


def test_twenty_questions_of_the_authors_form_with_synonyms_and_capitals(tmp_path: Path) -> None:
    lines = {"lines": ["Is it alive? No.", "Is it a pen? Yes."], "correct": True, "word": ["Biro", "Pen", "ballpoint"]}
    capital = {"lines": ["Is it a pen? Yes."], "correct": True, "word": "Pen"}
    unknown = {**lines, "word": ["Flux capacitor"]}
    empty = {**lines, "word": []}
    episodes, dropped = read(write(tmp_path, [lines, capital, unknown, empty]), env="twenty_questions_subset")
    assert [episode.success for episode in episodes] == [True, True]
    assert [episode.rewards for episode in episodes] == [[-1.0, 0.0], [0.0]]
    assert [reason.split(":")[0] for reason, _ in dropped] == ["`word` is unknown to twenty_questions_subset", "`word`"]


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_compressed_file_is_read(tmp_path: Path, kind: str) -> None:
    plain = write(tmp_path, [item(ASIA, PARIS)])
    packed = tmp_path / "packed.json.x"
    with pa.CompressedOutputStream(str(packed), kind) as stream:
        stream.write(plain.read_bytes())
    assert read(packed) == read(plain)
    packed.write_bytes(packed.read_bytes()[:20])
    with pytest.raises(ConfigError):
        read(packed)


def test_by_the_rule_of_the_paper_naming_the_city_is_a_guess(tmp_path: Path) -> None:
    file = write(tmp_path, [item("Is your city in the Paris region? Yes.")])
    (episode,), _ = read(file, compat=True)
    assert (episode.rewards, episode.success) == ([0.0], True)


def test_twenty_questions(tmp_path: Path) -> None:
    file = write(
        tmp_path, [item("Is it alive? No.", "Is it a pen? Yes.", word="pen"), item("Is it a pen? No.", word="x")]
    )
    (episode,), dropped = read(file, env="twenty_questions_subset")
    assert episode.rewards == [-1.0, 0.0]
    assert len(dropped) == 1


@pytest.mark.parametrize(
    ("text", "kept", "reason"),
    [
        (json.dumps([item(PARIS), item(ASIA, PARIS)])[:-40], 1, "invalid JSON"),
        (json.dumps([item(PARIS)])[:-1], 1, "ends before its list does"),
        ("[" + json.dumps(item(PARIS)) + ", {'single': 'quotes'}]", 1, "invalid JSON"),
        ("[" + json.dumps(item(PARIS)) + ", " + "[" * 100_000, 1, "invalid JSON"),
        ("\ufeff" + json.dumps([item(PARIS)]), 1, None),
        (json.dumps(item(PARIS)) + "\n" + json.dumps(item(ASIA, PARIS)) + "\n", 2, None),
        (json.dumps([item(PARIS)], indent=2), 1, None),
        ("[]", 0, None),
    ],
)
def test_damaged_text_keeps_what_is_before_the_damage(tmp_path: Path, text: str, kept: int, reason: str | None) -> None:
    episodes, dropped = read(write(tmp_path, text))
    assert len(episodes) == kept
    assert len(dropped) == (reason is not None)
    assert reason is None or reason in dropped[0][0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b" \n ", "is empty"),
        (b"word,done\nparis,1\n", "begins with 'word,done"),
        (b'"text"', "begins with"),
        (json.dumps([item(PARIS)]).encode("utf-16"), "UTF-16"),
        ('[{"word": "Köln"}]'.encode("latin-1"), "not UTF-8 text: byte 12"),
        (b"\x89PNG\r\n", "not UTF-8"),
    ],
)
def test_a_file_of_another_kind_is_refused_in_a_sentence(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "other.json"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        import_episodes(file, format_name="lmrl", env="guess_my_city", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"file": Path("nowhere.json")}, "cannot read nowhere.json"),
        ({"file": Path(".")}, r"cannot read \."),
        ({"env": "maze"}, "lmrl is for guess_my_city"),
        ({"env": "guess_my_town"}, "did you mean 'guess_my_city'"),
        ({"overrides": ["env.kwargs.compact=true"]}, "did you mean 'compat'"),
        ({"format_name": "parquet"}, "cannot be read as episodes"),
        ({"format_name": "run", "file": Path(".")}, r"^\. holds no episodes\.parquet and no replay"),
    ],
)
def test_wrong_arguments_leave_nothing_behind(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    file = write(tmp_path, [item(PARIS)])
    arguments = {"file": file, "format_name": "lmrl", "env": "guess_my_city"} | changes
    if "format_name" in changes and changes["format_name"] == "parquet":
        arguments["file"] = file.rename(tmp_path / "c.parquet")
    with pytest.raises(ConfigError, match=says):
        import_episodes(arguments.pop("file"), out=tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_no_usable_episode_is_an_error_after_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="no usable episode of guess_my_city"):
        import_episodes(
            write(tmp_path, [item(PARIS, word="atlantis"), item(ASIA), item(PARIS, word="nowhere")]),
            format_name="lmrl",
            env="guess_my_city",
            out=tmp_path / "out",
        )
    printed = capsys.readouterr().out
    assert "read 3 from" in printed
    assert "kept 0, dropped 3" in printed
    assert printed.splitlines()[1] == "2  `word` is unknown to guess_my_city (first: conversation 0, 'atlantis')"
    assert printed.splitlines()[2].startswith("1  marked as won")
    assert not (tmp_path / "out").exists()


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20) | st.sampled_from([PARIS, ASIA, "paris,france"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["conversation", "done", "word", "x"]), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(items=st.lists(JSON, max_size=5), cut=st.integers(0, 200))
def test_any_json_and_any_part_of_it_is_read_without_an_exception(tmp_path_factory, items, cut):
    file = tmp_path_factory.getbasetemp() / "any.json"
    text = json.dumps(items)
    file.write_text(text[: len(text) - cut] or "[", encoding="utf-8")
    episodes, dropped = read(file)
    cut_off = [reason for reason, _ in dropped if "file" in reason]
    assert len(cut_off) <= 1
    assert len(episodes) + len(dropped) - len(cut_off) <= len(items)


def test_an_imported_folder_is_imported_and_exported_unchanged(tmp_path: Path) -> None:
    file = write(tmp_path, [item(ASIA, PARIS)])
    import_episodes(file, format_name="lmrl", env="guess_my_city", out=tmp_path / "one")
    import_episodes(tmp_path / "one" / "episodes.parquet", out=tmp_path / "two")
    export(tmp_path / "one", to=tmp_path / "three")
    one, two, three = (read_imports([str(tmp_path / name)], env="guess_my_city") for name in ("one", "two", "three"))
    assert one == two == three == read(file)[0]


@pytest.mark.skipif(not SAMPLE.is_file(), reason="no shared/data/lmrl_guess_my_city_sample.json beside the checkout")
def test_a_real_sample_of_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import_episodes(
        SAMPLE,
        format_name="lmrl",
        env="guess_my_city",
        out=tmp_path / "out",
    )
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["read"] == 120 == summary["kept"] + sum(summary["dropped"].values())
    assert summary["kept"] >= 35
    assert "an answer reveals the word before it is guessed" in capsys.readouterr().out
    file = tmp_path / "out" / "episodes.parquet"
    frame = pandas.read_parquet(file)
    assert len(frame) == summary["kept"] == frame["episode_id"].nunique()
    assert frame["reward"].map(sum).mean() == pytest.approx(summary["return_mean"])
    won = f"select count(*) from '{file}' where terminated and list_sum(reward) = 1 - len(reward)"
    assert duckdb.sql(won).fetchall() == [(int(frame["success"].sum()),)]
    assert (frame["terminated"] == frame["success"]).all()
    assert frame["reward"].map(len).max() <= 20
