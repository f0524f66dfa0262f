"""The checks of the chaos program find what is wrong, and its faults follow from the seed."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from archer.config.models import RunConfig
from bench import chaos_run
from bench.chaos import CONFIG, agreement, check, growth
from bench.chaos_run import Driver, Faults, Sample


def test_the_configuration_is_valid() -> None:
    config = RunConfig.model_validate({**CONFIG, "cycles": 8})
    assert (config.mode, config.learner.ranks, config.rollout.workers, config.replay.shards) == ("async", 2, 2, 2)


def sampled(cycle: int, rss_mb: float = 100.0, files: int = 20, pid: int = 7) -> Sample:
    return Sample(10.0 * cycle, cycle, "pool", pid, rss_mb, files)


def test_growth_counts_from_when_a_process_has_seen_some_cycles() -> None:
    """A process that starts takes memory; one that goes on taking it leaks."""
    starts = [sampled(4, 100), sampled(5, 600), sampled(7, 900), sampled(9, 950)]
    assert growth(starts) == []
    (leak,) = growth([*starts, sampled(20, 1200)])
    assert (leak["kind"], leak["last"]["rss_mb"]) == ("pool", 1200)
    assert len(growth([*starts, *(sampled(i, files=20 + 10 * i, pid=8) for i in range(20))])) == 1


def test_a_seed_gives_the_same_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos_run, "_fill", lambda folder, seconds: None)
    driver: Any = Driver(tmp_path / "c.yaml", tmp_path / "run", tmp_path / "log")
    monkeypatch.setattr(driver, "processes", lambda: {kind: [] for kind in ("driver", *chaos_run.TITLES)})

    def faults(seed: int, *, disk: bool = True, cut: bool = True) -> list[tuple[str, str]]:
        made = Faults(seed, disk=disk, cut=cut)
        for _ in range(60):
            made.strike(driver)
        return [(row["way"], row["victim"]) for row in made.made]

    assert faults(1) == faults(1) != faults(2)
    assert {victim for _, victim in faults(1)} == {"disk", "driver", *chaos_run.TITLES}
    assert "disk" not in {victim for _, victim in faults(1, disk=False)}


def test_a_cut_ends_the_connections_of_a_process_for_both_sides() -> None:
    if not chaos_run.can_cut():
        pytest.skip("connections cannot be cut here: it needs the rights of root, and `ss`")
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = "import socket, sys; c = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); c.recv(1)"
        command = [sys.executable, "-S", "-c", program, str(server.getsockname()[1])]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(60)
                assert chaos_run.cut_off(psutil.Process(process.pid)) == 1
                with pytest.raises(OSError, match=r"reset|abort"):
                    connection.recv(1)
            assert process.wait(60) == 1


def disturbed(folder: Path, monkeypatch: pytest.MonkeyPatch, ids: list[str], seen: set[str]) -> Driver:
    """Return the driver of a run of two cycles that has ended, with these episodes in replay."""
    run = folder / "chaos"
    run.mkdir()
    summary = {"cycles": 2, "episodes": 3, "final_return": -20.0, "final_interval": [-21.0, -19.0], "restarts": None}
    (run / "summary.json").write_text(json.dumps(summary))
    rows = [{"kind": "passes"}, *({"kind": "cycle", "cycle": cycle} for cycle in (1, 2))]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr("bench.chaos.episode_ids", lambda replay: ids)
    driver = Driver(folder / "c.yaml", run, folder / "log")
    driver.seen = seen
    driver.ends = [
        {"status": -9, "seconds": 1.0, "said": "", "traceback": False},
        {"status": 0, "seconds": 1.0, "said": "", "traceback": False},
    ]
    return driver


def unsound(driver: Driver, **calm: Any) -> set[str]:
    summary = json.loads((driver.folder / "summary.json").read_text())
    found = check(driver, 2)
    found["return"] = agreement(summary, {"final_return": -20.5, "final_interval": [-22.0, -20.0], **calm})
    return {name for name, result in found.items() if not result["sound"]}


def test_a_sound_run_passes_every_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unsound(disturbed(tmp_path, monkeypatch, ["a", "b", "c"], {"a", "b"})) == set()


def test_what_is_wrong_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = disturbed(tmp_path, monkeypatch, ["a", "a"], {"a", "b"})
    (driver.folder / "checkpoints").mkdir()
    (driver.folder / "checkpoints" / "cycle-00003.partial").mkdir()
    driver.ends.insert(0, {"status": -6, "seconds": 1.0, "said": "Fatal Python error", "traceback": True})
    driver.samples = [sampled(0), sampled(3), sampled(9, files=200)]
    (driver.folder / "metrics.jsonl").write_text('{"kind": "cycle", "cycle": 2}\n')
    assert unsound(driver, final_interval=[-10.0, -5.0]) == {
        "each cycle once",
        "acknowledged episodes missing",
        "episodes twice in replay",
        "episodes counted, and held",
        "left over",
        "processes that grew",
        "ends without a sentence",
        "return",
    }
