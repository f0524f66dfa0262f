"""The index and the data of the page: filters, search, live runs, damaged files, tokens and paths."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner
from viewer_cases import say, small_runs

from archer.cli import app
from archer.viewer.app import make_app
from archer.viewer.detail import episode_page
from archer.viewer.search import search_terms
from archer.viewer.store import Store
from bench.viewer_data import MadeRun, write_run
from learner.feeding.demonstrations import write_demonstrations
from learner.history.folder import EPISODES, NEWEST, VALUES, HistoryFolder, history_files
from learner.history.values import VALUE_TABLE


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def store(root: Path) -> Iterator[Store]:
    store = Store(root)
    store.refresh()
    yield store
    store.close()


@pytest.fixture(scope="module")
def page(store: Store) -> TestClient:
    return TestClient(make_app(store), base_url="http://localhost")


def _all(root: Path) -> list[dict[str, Any]]:
    """Return every kept episode of all runs, read without the index."""
    found = []
    for run in sorted(path.name for path in root.iterdir()):
        for path in history_files(root / run, EPISODES):
            rows = pq.read_table(path).to_pylist()
            found += [{**row, "run": run, "file": path.name, "row": i} for i, row in enumerate(rows)]
    return found


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, lambda e: True),
        ({"run": "beta"}, lambda e: e["run"] == "beta"),
        ({"stage": "evaluation", "evaluation": "final"}, lambda e: e["evaluation"] == "final"),
        ({"success": "no"}, lambda e: e["success"] is False),
        ({"min_return": "-4", "max_return": "-2"}, lambda e: -4 <= sum(e["reward"]) <= -2),
        ({"min_turns": "8"}, lambda e: len(e["reward"]) >= 8),
        ({"min_version": "2", "max_version": "3"}, lambda e: 2 <= e["version"] <= 3),
        ({"q": "VIOLIN metal"}, lambda e: _says(e, "violin") and _says(e, "metal")),
        ({"q": '"is it made of metal?"'}, lambda e: _says(e, "is it made of metal?")),
        ({"q": "100%_nothing"}, lambda e: False),
        ({"env": "chess"}, lambda e: False),
    ],
)
def test_filters_and_search_find_what_a_plain_loop_finds(
    root: Path, page: TestClient, asked: Any, expected: Any
) -> None:
    wanted = {(e["run"], e["file"], e["row"]) for e in _all(root) if expected(e)}
    content = page.get("/api/episodes", params={**asked, "limit": "200"}).json()
    assert {(row["run"], row["file"], row["row"]) for row in content["rows"]} == wanted
    assert content["total"] == len(wanted)


def _says(episode: dict[str, Any], term: str) -> bool:
    return term in "\n".join(message["content"] for message in episode["messages"]).lower()


def test_pages_follow_the_order_and_hold_every_episode_once(root: Path, page: TestClient) -> None:
    seen = []
    for offset in range(0, 200, 7):
        part = page.get("/api/episodes", params={"sort": "return", "offset": str(offset), "limit": "7"}).json()
        seen += part["rows"]
    assert [row["ret"] for row in seen] == sorted((row["ret"] for row in seen), reverse=True)
    assert len({(row["run"], row["file"], row["row"]) for row in seen}) == len(seen) == len(_all(root))


def test_an_episode_has_its_turns_tokens_values_and_siblings(root: Path, page: TestClient) -> None:
    used = pq.read_table(history_files(root / "alpha", VALUES)[0]).to_pylist()[0]
    episode = next(e for e in _all(root) if e["episode_id"] == used["episode_id"])
    shown = page.get("/api/episode", params={name: episode[name] for name in ("run", "file", "row")}).json()
    assert len(shown["turns"]) == len(episode["reward"])
    for turn in shown["turns"]:
        assert "".join(token["text"] for token in turn["tokens"]) == turn["action"] + "\n"
        assert turn["action"] == episode["messages"][1 + 2 * turn["turn"]]["content"]
        assert turn["after"] == [episode["messages"][2 + 2 * turn["turn"]]]
        assert turn["stop"] == "stop token"
    assert shown["turns"][0]["values"][0]["q"] == pytest.approx(used["q"])
    assert shown["turns"][0]["newest"] is None, "the critic has valued the last cycle again"
    assert shown["return"] == sum(episode["reward"])
    final = next(e for e in _all(root) if e["evaluation"] == "final" and e["run"] == "alpha")
    shown = page.get("/api/episode", params={name: final[name] for name in ("run", "file", "row")}).json()
    versions = {(row["run"], row["evaluation"]) for row in shown["siblings"]}
    assert versions >= {("alpha", "clone"), ("alpha", "cycle-2"), ("alpha", "final"), ("beta", "clone")}


def test_a_turn_has_the_values_of_the_newest_critic_beside_those_that_were_used(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "alpha", tmp_path / "alpha")
    used = pq.read_table(history_files(root / "alpha", VALUES)[0]).to_pylist()[0]
    newest = pa.Table.from_pylist([used | {"q": 9.0, "cycle": 77, "target": None}], VALUE_TABLE)
    HistoryFolder(tmp_path / "alpha", 1 << 20).write(NEWEST, 77, "rank-0", newest)
    episode = next(e for e in _all(root) if e["episode_id"] == used["episode_id"])
    store = Store(tmp_path)
    store.refresh()
    shown = episode_page(store, "alpha", episode["file"], episode["row"])
    store.close()
    assert shown is not None
    of_turn = {turn["turn"]: turn for turn in shown["turns"]}
    assert of_turn[used["turn"]]["newest"]["q"] == 9.0
    assert of_turn[used["turn"]]["newest"]["cycle"] == 77
    assert of_turn[used["turn"]]["values"][0]["q"] == pytest.approx(used["q"])
    assert all(turn["newest"] is None for number, turn in of_turn.items() if number != used["turn"])


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/api/episodes?min_return=high", 400, "give a number"),
        ("/api/episodes?sort=random", 400, "give one of newest"),
        ("/api/episodes?success=maybe", 400, "yes, no or unknown"),
        ("/api/episodes?offset=-1", 400, "whole number"),
        ("/api/episodes?q=a b c d e f g h i", 400, "at most 8 words"),
        ("/api/episode?run=alpha&file=../../../../etc/passwd&row=0", 404, "no such run or episode"),
        ("/api/episode?run=../alpha&file=00000000-eval-clone.parquet&row=0", 404, "no such run or episode"),
        ("/api/episode?run=alpha&file=x&row=first", 400, "number of a row"),
        ("/api/run?run=../../etc", 404, "no such run or episode"),
        ("/static/../access.py", 404, ""),
        ("/static/%2e%2e/app.py", 404, ""),
        ("/etc/passwd", 404, ""),
    ],
)
def test_bad_requests_get_a_sentence_and_nothing_else(page: TestClient, path: str, status: int, said: str) -> None:
    answer = page.get(path)
    assert answer.status_code == status
    assert said in answer.text
    assert "root:" not in answer.text


def test_only_reading_by_a_name_of_this_machine_is_answered(page: TestClient) -> None:
    assert page.post("/api/runs").status_code == 405
    assert page.get("/api/runs", headers={"host": "rebound.example:8420"}).status_code == 421
    assert page.get("/api/runs", headers={"host": "[::1]:8420"}).status_code == 200
    policy = page.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_a_token_is_asked_for_and_leaves_the_address(store: Store) -> None:
    client = TestClient(make_app(store, "s3cret"), base_url="http://viewer.example", follow_redirects=False)
    assert client.get("/api/runs").status_code == 401
    wrong = client.get("/?token=guess")
    assert (wrong.status_code, "s3cret" in wrong.text) == (401, False)
    assert "the token is wrong" in wrong.text
    assert client.get("/api/runs", headers={"authorization": "Bearer s3cret"}).status_code == 200
    first = client.get("/?token=s3cret")
    assert (first.status_code, first.headers["location"]) == (303, "/")
    assert "httponly" in first.headers["set-cookie"].lower()
    assert client.get("/api/runs").status_code == 200


def test_live_runs_grow_resumed_ones_change_and_damaged_files_are_named(tmp_path: Path) -> None:
    run = write_run(tmp_path, MadeRun("live", cycles=2, episodes=2, evaluated=1))
    store = Store(tmp_path)

    def held() -> int:
        store.refresh()
        return store.query("SELECT count(*) AS n FROM episodes")[0]["n"]

    assert held() == 6
    files = history_files(run, EPISODES)
    shutil.copy(files[-1], files[-1].with_name("00000003-training.parquet"))
    (run / "history" / "episodes" / ".00000004-training.parquet.1.part").write_bytes(b"half")
    before = held()
    assert before == 6 + pq.read_metadata(files[-1]).num_rows
    say(files[0], "a quite different question")
    assert held() == before
    found = store.query("SELECT count(*) AS n FROM texts WHERE contains(lower, 'quite different')")
    assert found[0]["n"] == 1
    files[0].unlink()
    assert held() == before - 1
    (run / "history" / "episodes" / "00000005-training.parquet").write_bytes(b"PAR1 and then nothing")
    outside = tmp_path.parent / "outside.parquet"
    shutil.copy(files[1], outside)
    (run / "history" / "episodes" / "00000006-training.parquet").symlink_to(outside)
    assert held() == before - 1
    said = " ".join(store.problems.values())
    assert "00000005-training.parquet of live cannot be read" in said
    assert "00000006-training.parquet of live leads out of the folder" in said
    store.close()


def test_demonstrations_are_a_stage_of_their_own(tmp_path: Path) -> None:
    from buffer.episodes.schema import batch_to_episodes

    run = write_run(tmp_path, MadeRun("taught", cycles=1, episodes=2, evaluated=1))
    rows = pq.read_table(history_files(run, EPISODES)[0]).to_batches()[0]
    episodes = batch_to_episodes(rows)
    write_demonstrations(episodes, run / "demonstrations.arrow")
    store = Store(tmp_path)
    store.refresh()
    page = TestClient(make_app(store), base_url="http://localhost")
    (row,) = page.get("/api/episodes", params={"stage": "demonstration"}).json()["rows"]
    shown = page.get("/api/episode", params={name: row[name] for name in ("run", "file", "row")}).json()
    assert (row["version"], shown["turns"][0]["tokens"]) == (-1, [])
    assert shown["turns"][0]["action"] == episodes[0].messages[1]["content"]
    store.close()


def test_the_command_names_a_taken_port_and_a_folder_without_runs(root: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = CliRunner().invoke(app, ["view", str(root), "--port", str(port)])
    assert f"port {port} of 127.0.0.1 is taken" in str(done.exception)
    assert "contains no runs" in str(CliRunner().invoke(app, ["view", str(tmp_path)]).exception)
    assert "does not exist" in str(CliRunner().invoke(app, ["view", str(tmp_path / "x")]).exception)
    assert "no address" in str(CliRunner().invoke(app, ["view", str(root), "--host", "no such host"]).exception)


def test_search_terms_are_words_and_phrases() -> None:
    assert search_terms('Found "in a House" don\'t') == ["found", "in a house", "don't"]
    assert search_terms('an "open phrase') == ["an", "open", "phrase"]
    assert search_terms("  ") == []
