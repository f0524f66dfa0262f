"""The program that sends signals: its stages, its moments, and what it takes for sound."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from archer.config.loading import load_config
from bench.chaos_run import Driver
from bench.signals import Stage, make_driver, moments, stages_of, wait_for


def test_stages_lie_between_lines_and_short_ones_join_the_one_before() -> None:
    times = [("the command", 0.0), ("run folder X", 2.0), ("stage: clone", 2.1), ("stage: train", 9.0)]
    assert [(stage.number, stage.after, round(stage.seconds, 1)) for stage in stages_of(times, 20.0)] == [
        (0, "the command", 2.1),
        (2, "stage: clone", 6.9),
        (3, "stage: train", 11.0),
    ]


def test_a_seed_gives_the_same_moments_and_each_stage_once_before_any_twice() -> None:
    stages = [Stage(number, f"line {number}", 1.0) for number in range(4)]
    drawn = moments(stages, 6, random.Random(1))
    assert drawn == moments(stages, 6, random.Random(1)) != moments(stages, 6, random.Random(2))
    assert {stage for stage, _ in drawn} == set(stages)
    assert all(0 <= part < 1 for _, part in drawn)


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    config = load_config(str(make_driver(tmp_path, 3).config), [])
    assert (config.seed, config.learner.ranks, config.learner.restarts) == (3, 1, 0)


def test_a_moment_ends_with_its_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(tmp_path / "c.yaml", tmp_path / "run", tmp_path / "log")
    lines = ["run folder X"]
    monkeypatch.setattr(driver, "said", lambda: lines)
    monkeypatch.setattr(driver, "ended", lambda: lines.append("stage: clone"))
    assert wait_for(driver, Stage(1, "run folder X", 3600.0), 0.5) < 60
