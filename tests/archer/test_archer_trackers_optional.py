"""Weights & Biases, MLflow and Trackio, each in its own offline mode: what is found in their files afterwards.

`pip install --no-deps -r requirements-trackers.lock` installs them; without it these tests are skipped.
"""

from __future__ import annotations

import json
import os
import sqlite3
import struct
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from test_archer_trackers import EVALUATION, cycle

from archer.trackers import feed
from archer.trackers.base import Moment, TrackerName
from archer.trackers.feed import TrackerFeed

EPISODE = {"messages": [{"role": "user", "content": "<script>hi</script>"}], "reward": [1.0, 2.0]}


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take away every setting of the user, and let no library look for a server."""
    for name in list(os.environ):
        if name.startswith(("WANDB_", "MLFLOW_", "TRACKIO_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(feed, "_sample", lambda folder, name: [feed._conversation(EPISODE)])


def need(package: str) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install --no-deps -r requirements-trackers.lock")


def track(name: TrackerName, folder: Path) -> list[str]:
    """Track a run of two cycles that is resumed after the first; return what was said."""
    said: list[str] = []
    folder.mkdir(parents=True)
    with TrackerFeed([name], folder, "name: demo\nlearner: {lr: 0.5}\n", Moment(0, 0), said.append) as tracked:
        tracked.handle(cycle(1, -3.0))
        tracked.handle(EVALUATION)
    with TrackerFeed([name], folder, "name: demo\nlearner: {lr: 0.25}\n", Moment(1, 8), said.append) as tracked:
        tracked.handle(cycle(2, -2.0))
    return said


def wandb_records(folder: Path) -> Iterator[Any]:
    """Return the records of the offline files: a header of 7 bytes, then blocks of 32 KiB with parts of records."""
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        data, at, whole = path.read_bytes(), 7, b""
        while at + 7 <= len(data):
            if 32768 - at % 32768 < 7:
                at += 32768 - at % 32768
                continue
            _, length, kind = struct.unpack("<IHB", data[at : at + 7])
            whole += data[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):  # the only part, or the last one
                yield Record.FromString(whole)
                whole = b""


def test_wandb_offline_has_curves_configuration_tables_and_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = tmp_path / "demo"
    assert track("wandb", folder) == []
    records = list(wandb_records(folder))
    rows = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    assert [(row["cycle"], row["episodes"], row["return"]) for row in rows if "return" in row] == [
        (1, 8, -3),
        (2, 16, -2),
    ]
    assert {row["evaluation/return"] for row in rows if "evaluation/return" in row} == {-1.0}
    assert all("x" not in row and "success_rate" not in row for row in rows), "not finite, or unknown"
    runs = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert {(run.project, run.display_name) for run in runs} == {("archer", "demo")}
    assert len({run.run_id for run in runs}) == 1, "a resumed run continues the same one"
    (table,) = folder.glob("wandb/offline-run-*/files/media/table/evaluation/*.json")
    assert json.loads(table.read_text())["data"][1] == [1, 1.0, 1.0, 2, 0]
    (page,) = folder.glob("wandb/offline-run-*/files/media/html/episodes/cycle-1/*.html")
    assert "&lt;script&gt;hi" in page.read_text()
    assert "<script>" not in page.read_text()
    settings = {
        item.key: item.value_json
        for record in records
        if record.WhichOneof("record_type") in ("run", "config")
        for item in (record.run.config.update if record.HasField("run") else record.config.update)
    }
    assert json.loads(settings["learner"]) == {"lr": 0.25}


def test_wandb_without_an_account_ends_no_run_and_asks_for_nothing(tmp_path: Path) -> None:
    need("wandb")
    (said, again) = (track("wandb", tmp_path / name) for name in ("a", "b"))
    expected = "tracking with wandb has stopped, and the run goes on: PermissionError: no API key; run `wandb login`, "
    assert said[0] == again[0] == expected + "or set WANDB_MODE=offline"
    assert len(said) == 2, "once for the run, and once for the resumed run"


def test_mlflow_without_a_server_writes_a_database_and_artifacts(tmp_path: Path) -> None:
    need("mlflow")
    need("sqlalchemy")
    assert track("mlflow", tmp_path / "runs" / "demo") == []
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("archer")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("demo", "FINISHED")

    def points(name: str) -> dict[int, float]:
        return {point.step: point.value for point in client.get_metric_history(run.info.run_id, name)}

    assert points("return") == {1: -3.0, 2: -2.0}
    assert points("by_episodes/return") == {8: -3.0, 16: -2.0}
    assert points("evaluation/return") == {1: -1.0}
    artifacts = tmp_path / "runs" / "mlartifacts" / run.info.run_id / "artifacts"
    assert "lr: 0.25" in (artifacts / "config.yaml").read_text()
    assert json.loads((artifacts / "evaluation" / "cycle-1.json").read_text())["data"][1] == [1, 1.0, 1.0, 2, 0]
    assert (artifacts / "episodes" / "cycle-1" / "0.txt").read_text() == "user: <script>hi</script>\nreturn: 3"


def test_a_mlflow_server_that_is_not_there_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said = track("mlflow", tmp_path / "demo")
    assert len(said) == 2
    assert said[0].startswith("tracking with mlflow has stopped, and the run goes on: ")
    assert "127.0.0.1" in said[0]


def test_trackio_writes_its_local_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("trackio")
    import trackio.sqlite_storage
    import trackio.utils

    place = tmp_path / "trackio"  # Trackio reads TRACKIO_DIR when it is imported
    for module in (trackio, trackio.utils, trackio.sqlite_storage):
        monkeypatch.setattr(module, "TRACKIO_DIR", place, raising=False)
    assert track("trackio", tmp_path / "demo") == []
    with sqlite3.connect(next(place.glob("archer*.db"))) as database:
        entries = [
            (run, step, json.loads(values))
            for run, step, values in database.execute("select run_name, step, metrics from metrics order by id")
        ]
        settings = [json.loads(text) for (text,) in database.execute("select config from configs")]
    curves = [(step, row["episodes"], row["return"]) for _, step, row in entries if "return" in row]
    assert curves == [(1, 8, -3.0), (2, 16, -2.0)]
    assert {run for run, _, _ in entries} == {"demo"}
    (table,) = (row["evaluation/cycle-1"] for _, _, row in entries if "evaluation/cycle-1" in row)
    assert [list(line.values())[1:] for line in table["_value"]][1] == [1.0, 1.0, 2, 0]
    (episode,) = (row["episodes/cycle-1/0"] for _, _, row in entries if "episodes/cycle-1/0" in row)
    assert episode["_value"] == "    user: <script>hi</script>\n    return: 3"
    assert [found["learner"] for found in settings] == [{"lr": 0.25}], "of the resumed run"
