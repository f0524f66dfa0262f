"""targets.json: which processes it lists, what it counts, and what it holds after the end."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError

from actors.errors import RolloutTimeout
from archer.config.models import RunConfig
from archer.driver.metrics import RunMetrics
from archer.driver.prometheus_folder import FOLDER, TOKEN_FILE, announce
from archer.driver.run_folder import RunFolder
from archer.driver.targets import Targets, expected_processes
from archer.errors import RunError
from buffer.errors import ReplayError
from buffer.telemetry.endpoint import Process
from learner.errors import WaitTimeoutError

CONFIG = RunConfig.model_validate(
    {
        "name": "demo",
        "cycles": 5,
        "model": {"build": {}},
        "env": {"id": "twenty_questions_subset"},
        "demonstrations": {"episodes": 32},
        "rollout": {"workers": 2},
        "replay": {"shards": 1},
    }
)


@pytest.fixture
def metrics() -> RunMetrics:
    return RunMetrics(CONFIG, "settings")


@pytest.fixture
def targets(tmp_path: Path, metrics: RunMetrics, monkeypatch: pytest.MonkeyPatch) -> Iterator[Targets]:
    monkeypatch.setattr("archer.driver.targets.REFRESH_S", 3600.0)  # the tests say when
    with Targets(tmp_path / "targets.json", "demo", metrics, expected_processes(CONFIG)) as made:
        yield made


def listed(tmp_path: Path) -> dict[str, str]:
    """Return the address of each instance."""
    entries = json.loads((tmp_path / "targets.json").read_text())
    return {entry["labels"]["instance"]: entry["targets"][0] for entry in entries}


def test_each_process_has_an_instance_that_stays_when_its_address_changes(
    tmp_path: Path, targets: Targets, metrics: RunMetrics
) -> None:
    workers = [Process("rollout", "worker-0", "a:1", 0), Process("rollout", "worker-1", "a:2", 0)]
    shards = [Process("shard", "shard-0", "a:3")]
    targets.add_source("pool", lambda: workers)
    targets.add_source("replay", lambda: shards)
    targets.refresh()
    assert listed(tmp_path) == {"demo/worker-0": "a:1", "demo/worker-1": "a:2", "demo/shard-0": "a:3"}
    entry = json.loads((tmp_path / "targets.json").read_text())[0]
    assert entry["labels"] == {"instance": "demo/worker-0", "run": "demo", "role": "rollout", "name": "worker-0"}

    workers[0] = Process("rollout", "worker-0", "", 1)  # it died
    targets.refresh()
    assert set(listed(tmp_path)) == {"demo/worker-1", "demo/shard-0"}
    value = metrics.registry.get_sample_value
    assert value("archer_processes", {"role": "rollout", "state": "live"}) == 1
    assert value("archer_processes", {"role": "rollout", "state": "missing"}) == 1
    assert value("archer_process_restarts_total", {"role": "rollout"}) == 1

    workers[0], shards[0] = Process("rollout", "worker-0", "b:9", 1), Process("shard", "shard-0", "a:4")
    targets.refresh()
    targets.refresh()
    assert listed(tmp_path)["demo/worker-0"] == "b:9"
    assert value("archer_processes", {"role": "rollout", "state": "missing"}) == 0
    assert value("archer_process_restarts_total", {"role": "rollout"}) == 1
    assert value("archer_process_restarts_total", {"role": "shard"}) == 1, "its address has changed once"
    assert value("archer_process_restarts_total", {"role": "limiter"}) == 0


@pytest.mark.parametrize(
    "error",
    [TimeoutError("no answer"), RolloutTimeout("no"), ActorDiedError(), ReplayError("gone"), WaitTimeoutError("")],
)
def test_a_source_that_fails_keeps_its_last_answer_and_its_processes_count_as_missing(
    tmp_path: Path, targets: Targets, metrics: RunMetrics, error: Exception
) -> None:
    answers = [[Process("shard", "shard-0", "a:1")]]

    def source() -> list[Process]:
        if not answers:
            raise error
        return answers.pop()

    targets.add_source("replay", source)
    targets.refresh()
    targets.refresh()
    assert listed(tmp_path) == {"demo/shard-0": "a:1"}
    value = metrics.registry.get_sample_value
    assert value("archer_processes", {"role": "shard", "state": "missing"}) == 1
    assert value("archer_targets_source_failures_total", {"source": "replay"}) == 1


def test_the_list_is_empty_after_the_end_also_of_a_run_that_fails(tmp_path: Path, metrics: RunMetrics) -> None:
    path = tmp_path / "targets.json"
    path.write_text("left by a run that was killed")

    def fail() -> None:
        with Targets(path, "demo", metrics, {}) as targets:
            assert json.loads(path.read_text()) == []
            targets.add_source("pool", lambda: [Process("pool", "pool", "a:1")])
            targets.refresh()
            assert len(json.loads(path.read_text())) == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert json.loads(path.read_text()) == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["targets.json"]


def test_a_folder_of_runs_has_a_link_to_each_run_and_one_token(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    with RunFolder.create(tmp_path, "a") as first, RunFolder.create(tmp_path, "b") as second:
        token = announce(first)
        first.write(first.targets_path, "[1]")
        assert len(token) > 20
        assert announce(second) == announce(first) == token
        assert (folder / TOKEN_FILE).stat().st_mode & 0o077 == 0
        assert sorted(path.name for path in folder.iterdir()) == ["a.json", "b.json", TOKEN_FILE]
        assert (folder / "a.json").read_text() == "[1]", "the link leads to the list"
        shutil.rmtree(second.path)
        announce(first)
        assert not (folder / "b.json").is_symlink(), "the run was deleted"
        (folder / TOKEN_FILE).write_text("\n")
        with pytest.raises(RunError, match="is empty; delete it"):
            announce(first)


def test_the_driver_shows_the_latest_cycle_and_evaluation_apart(metrics: RunMetrics) -> None:
    value = metrics.registry.get_sample_value
    assert value("archer_run_return", {"stage": "training"}) is None, "nothing has been played"
    metrics.handle({"kind": "phase", "cycle": 0, "phase": "critic"})
    metrics.handle({"kind": "phase", "cycle": 0, "phase": "actor"})
    assert value("archer_run_phase", {"phase": "critic"}) == 0
    assert value("archer_run_phase", {"phase": "actor"}) == 1
    figures = {"return": -3.0, "success_rate": 0.25, "mean_turns": 4.0, "episodes": 64, "turns": 256}
    metrics.handle({"kind": "cycle", "cycle": 2, "metrics": figures})
    evaluation = {"return_mean": 1.5, "success_rate": 1.0, "mean_turns": 3.0}
    metrics.handle({"kind": "evaluation", "name": "cycle-2", **evaluation})
    metrics.handle({"kind": "dropped", "episodes": 3})
    for stage, ret, success, turns in (("training", -3.0, 0.25, 4.0), ("evaluation", 1.5, 1.0, 3.0)):
        assert value("archer_run_return", {"stage": stage}) == ret
        assert value("archer_run_success_ratio", {"stage": stage}) == success
        assert value("archer_run_episode_turns", {"stage": stage}) == turns
    assert value("archer_run_cycle") == 2
    assert value("archer_run_episodes_total") == 64
    assert value("archer_run_dropped_episodes_total") == 3
    (info,) = [f for f in metrics.registry.collect() if f.name == "archer_run_info"]
    assert info.samples[0].labels["algorithm"] == "archer"
