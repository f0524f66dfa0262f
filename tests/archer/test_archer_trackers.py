"""Trackers: what TensorBoard's own reader finds in the log, and that a tracker that fails or hangs ends no run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from archer.errors import ConfigError
from archer.results.statistics import EvalResult
from archer.trackers import base, feed, isolated
from archer.trackers.base import Moment, require_installed
from archer.trackers.feed import TrackerFeed
from archer.trackers.isolated import IsolatedTracker
from archer.trackers.tensorboard import TensorBoardTracker

_PLAYED = {
    "kind": "evaluation",
    "name": "cycle-1",
    "returns": [-3.0, 1.0],
    "successes": [None, 1.0],
    "turns": [4, 2],
    "invalid_actions": [1, 0],
}
EVALUATION = _PLAYED | asdict(EvalResult.from_event(_PLAYED, env="wordle", greedy=False))
"""As the journal records it."""


def cycle(number: int, value: float) -> dict[str, Any]:
    metrics = {"return": value, "episodes": 8 * number, "critic/q_loss": 0.5, "success_rate": None, "x": float("nan")}
    return {"kind": "cycle", "cycle": number, "metrics": metrics}


def read(folder: Path, axis: str) -> EventAccumulator:
    found = EventAccumulator(str(folder / "tensorboard" / axis), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    return found


def points(folder: Path, axis: str, name: str) -> dict[int, float]:
    return {point.step: point.value for point in read(folder, axis).Scalars(name)}


def text(folder: Path, name: str) -> str:
    (event,) = read(folder, "cycle").Tensors(f"{name}/text_summary")
    return event.tensor_proto.string_val[0].decode()


def test_tensorboard_reads_scalars_by_cycle_and_by_episodes_and_the_tables(tmp_path: Path) -> None:
    said: list[str] = []
    with TrackerFeed(["tensorboard"], tmp_path, "name: demo\n", Moment(0, 0), said.append) as tracked:
        tracked.handle({"kind": "step", "metrics": {}})
        tracked.handle(cycle(1, -3.0))
        tracked.handle(EVALUATION)
        tracked.handle(cycle(2, -2.0))
    assert said == []
    assert points(tmp_path, "cycle", "return") == {1: -3.0, 2: -2.0}
    assert points(tmp_path, "episodes", "return") == {8: -3.0, 16: -2.0}
    assert points(tmp_path, "cycle", "evaluation/return") == {1: -1.0}
    assert points(tmp_path, "cycle", "evaluation/success_rate") == {1: 1.0}, "of the episodes that say"
    assert {"x", "success_rate"}.isdisjoint(read(tmp_path, "cycle").Tags()["scalars"]), "not finite, or unknown"
    assert "name: demo" in text(tmp_path, "configuration")
    assert "| 1 | 1 | 1 | 2 | 0 |" in text(tmp_path, "evaluation/cycle-1")


def test_cycles_that_a_resumed_or_restarted_run_repeats_are_dropped(tmp_path: Path) -> None:
    with TrackerFeed(["tensorboard"], tmp_path, "", Moment(0, 0), pytest.fail) as tracked:
        for number in (1, 2, 3):
            tracked.handle(cycle(number, -number))
        tracked.handle({"kind": "restart", "cycle": 1})
        tracked.handle(cycle(2, -20.0))
    assert points(tmp_path, "cycle", "return") == {1: -1.0, 2: -20.0}
    with TrackerFeed(["tensorboard"], tmp_path, "", Moment(1, 8), pytest.fail) as tracked:
        tracked.handle(cycle(2, -200.0))
    assert points(tmp_path, "cycle", "return") == {1: -1.0, 2: -200.0}
    assert points(tmp_path, "episodes", "return") == {8: -1.0, 16: -200.0}


def test_a_sample_of_the_evaluation_s_episodes_is_shown_as_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"messages": [{"role": "user", "content": "<script>hi</script>"}], "reward": [1.0, 2.0]}
    monkeypatch.setattr(feed, "_sample", lambda folder, name: [feed._conversation(row)])
    with TrackerFeed(["tensorboard"], tmp_path, "", Moment(0, 0), pytest.fail) as tracked:
        tracked.handle(EVALUATION)
    assert text(tmp_path, "episodes/cycle-1/0") == "    user: <script>hi</script>\n    return: 3"


class Broken:
    """A tracker whose first call fails, or that cannot be opened."""

    def __init__(self, *, opens: bool = True) -> None:
        if not opens:
            raise ConnectionError("no network")

    def settings(self, text: str) -> None:
        raise OSError("disk full")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_raises_in_the_call_and_starts_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    tracker = TensorBoardTracker(tmp_path, Moment(0, 0))
    assert threading.active_count() == before
    records = tracker._by_cycle._file._py_recordio_writer
    records._writer.close()
    records._writer = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    with pytest.raises(OSError, match="No space left"):
        tracker.scalars({"return": 1.0}, Moment(1, 8))


@pytest.mark.parametrize(
    ("open_", "reason"), [(Broken, "OSError: disk full"), (lambda: Broken(opens=False), "ConnectionError: no network")]
)
def test_a_tracker_that_fails_says_so_once_and_takes_no_more_calls(open_: Callable[[], Any], reason: str) -> None:
    said: list[str] = []
    tracker = IsolatedTracker("mine", open_, said.append)
    for _ in range(3):
        tracker.do(lambda found: found.settings(""))
    tracker.close()
    tracker.do(lambda found: pytest.fail("called after its end"))
    assert said == [f"tracking with mine has stopped, and the run goes on: {reason}"]


def test_a_tracker_that_hangs_delays_the_end_by_its_time_limit_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "_CLOSE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(isolated, "_WAITING", 2)
    said: list[str] = []
    release = threading.Event()
    tracker = IsolatedTracker("mine", Broken, said.append)
    tracker.do(lambda found: bool(release.wait(60)))
    tracker.close()
    assert said == ["tracking with mine has stopped, and the run goes on: it did not end within 0.1 s"]
    release.set()


def test_a_tracker_whose_package_is_missing_is_refused_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    require_installed(["tensorboard"])
    monkeypatch.setitem(base.TRACKERS, "tensorboard", base._Made("x:Y", "no_such_package"))
    with pytest.raises(ConfigError, match=r"tracking has tensorboard, which needs the package no_such_package"):
        require_installed(["tensorboard"])
