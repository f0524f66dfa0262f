"""Checkpoints under their final name are complete; damaged ones are refused with a clear message."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from actor_cases import save_model
from trainer_cases import make_args, make_session

from learner.collector import first_seed
from learner.config import LearnerConfig
from learner.engine.checkpoint_folders import begin, checkpoint_folders, commit
from learner.engine.checkpoints import TrainerState
from learner.engine.engines import Engine
from learner.errors import CheckpointError
from learner.seeds import EVALUATION_SEED


def _write(folder: Path, cycle: int, keep: int = 2) -> Path:
    partial = begin(folder, cycle)
    TrainerState(cycle=cycle, evaluations={"0": -15.0}).write(partial)
    return commit(partial, keep)


def test_the_newest_checkpoints_are_kept_and_listed(tmp_path: Path) -> None:
    for cycle in (1, 2, 10):
        _write(tmp_path, cycle)
    assert [path.name for path in checkpoint_folders(tmp_path)] == ["cycle-00002", "cycle-00010"]
    assert TrainerState.read(checkpoint_folders(tmp_path)[-1]) == TrainerState(cycle=10, evaluations={"0": -15.0})


def test_an_unfinished_checkpoint_is_not_listed(tmp_path: Path) -> None:
    whole = _write(tmp_path, 1)
    (begin(tmp_path, 2) / "state.json").write_text("{")
    assert checkpoint_folders(tmp_path) == [whole]
    # The next attempt at the same cycle starts with an empty folder.
    assert list(begin(tmp_path, 2).iterdir()) == []


def test_writing_a_cycle_again_replaces_it(tmp_path: Path) -> None:
    (_write(tmp_path, 3) / "old").touch()
    assert not (_write(tmp_path, 3) / "old").exists()


@pytest.mark.parametrize(("content", "says"), [(None, "no state.json"), ("{", "can't be read"), ('{"a": 1}', "older")])
def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path, content: str | None, says: str) -> None:
    if content is not None:
        (tmp_path / "state.json").write_text(content)
    with pytest.raises(CheckpointError, match=says):
        TrainerState.read(tmp_path)


@pytest.mark.usefixtures("one_rank")
def test_a_full_disk_leaves_the_previous_checkpoint_unchanged(tmp_path: Path) -> None:
    """The disk is full in the middle of a write."""
    before = _write(tmp_path / "checkpoints", 1)
    arguments, _ = make_args(tmp_path, save_model(tmp_path / "model"), "reinforce", {})
    session = make_session(arguments)
    session.state.cycle = 2

    def no_room(partial: Path) -> None:
        (partial / "half").touch()
        raise OSError(28, "No space left on device")

    algorithm: Any = SimpleNamespace(save=no_room)
    with pytest.raises(CheckpointError, match=r"cycle 2 could not be written.*No space left.*--resume"):
        session.save(algorithm, ())
    assert checkpoint_folders(tmp_path / "checkpoints") == [before]


def test_seeds_of_runs_and_of_evaluations_do_not_overlap() -> None:
    starts = sorted(first_seed(seed) for seed in range(500))
    assert starts[0] == 0
    assert starts[-1] + 10**8 < EVALUATION_SEED
    assert min(b - a for a, b in itertools.pairwise(starts)) >= 1_000_003 // 2


class Hostile:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self._path,)


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_checkpoint_is_read_without_running_what_it_holds(tmp_path: Path, stage: int) -> None:
    """At each ZeRO stage, in every file that DeepSpeed reads."""
    engine = Engine(torch.nn.Linear(4, 1), LearnerConfig(zero_stage=stage), lr=1e-3, max_grad_norm=1.0)
    engine.ds.backward(engine(torch.ones(2, 4)).sum())
    engine.ds.step()
    engine.save(str(tmp_path), "saved")
    engine.load(str(tmp_path), "saved")
    files = sorted((tmp_path / "saved").glob("*.pt"))
    assert files
    for path in files:
        good = path.read_bytes()
        torch.save({"module": Hostile(tmp_path / "ran")}, path)
        with pytest.raises(CheckpointError, match=r"holds more than tensors.*a checkpoint that ArCHer wrote"):
            engine.load(str(tmp_path), "saved")
        path.write_bytes(good)
    assert not (tmp_path / "ran").exists()
    engine.load(str(tmp_path), "saved")
