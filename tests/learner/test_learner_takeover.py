"""Ranks that restart after a death go on from the checkpoint, beside a pool and a replay that have gone on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from actor_cases import save_model
from trainer_cases import cycles, make_args, make_trainer, train

from buffer.rollout_records import Recovery
from learner.collector import Collector
from learner.engine.checkpoint_folders import STOP_FILE, begin, checkpoint_folders, commit
from learner.engine.checkpoints import TrainerState

pytestmark = pytest.mark.usefixtures("one_rank")


def test_restarted_ranks_reuse_no_version_and_no_seed(tmp_path: Path) -> None:
    """The engines get the checkpoint's weights under a version that no engine has had, before anything plays."""
    model = save_model(tmp_path / "model")
    args, _ = make_args(tmp_path / "run", model, "reinforce", {}, cycles=1, episodes_per_cycle=4)
    train(args)
    (checkpoint,) = checkpoint_folders(tmp_path / "run" / "checkpoints")
    before = TrainerState.read(checkpoint)
    assert (before.cycle, before.version, before.episodes, before.next_seed) == (1, 1, 4, 4)

    args, events = make_args(tmp_path / "run", model, "reinforce", {}, resume=checkpoint, restarts=1)
    rollouts: Any = args.rollouts
    # The ranks that died had gone on for two cycles: the engines may hold version 3, and seeds up to 11 were played.
    rollouts.recover = lambda: Recovery(version=3, next_seed=12, episodes=12, turns=48)
    trainer = make_trainer(args)
    assert rollouts.sent == ["all"]
    state = trainer.state
    assert (state.cycle, state.version, state.episodes, state.turns, state.next_seed) == (1, 4, 12, 48, 12)
    trainer.run()
    (cycle,) = cycles(events)
    assert (cycle["episodes"], cycle["policy_version"]) == (16, 5)
    assert TrainerState.read(tmp_path / "run" / "checkpoints" / "cycle-00002").next_seed == 16


def test_episodes_of_a_resumed_run_count_from_its_own_checkpoint(tmp_path: Path) -> None:
    """The pool counts since the driver started; what earlier drivers collected is in the checkpoint that it loaded."""
    model = save_model(tmp_path / "model")
    args, _ = make_args(tmp_path / "run", model, "reinforce", {}, cycles=1)
    train(args)
    (checkpoint,) = checkpoint_folders(tmp_path / "run" / "checkpoints")
    args, _ = make_args(tmp_path / "run", model, "reinforce", {}, resume=checkpoint, restarts=1)
    args = replace(args, engines_resume=checkpoint)
    rollouts: Any = args.rollouts
    rollouts.recover = lambda: Recovery(version=2, next_seed=9, episodes=5, turns=20)
    assert make_trainer(args).state.episodes == 4 + 5


def test_a_group_begins_with_the_restart(tmp_path: Path) -> None:
    """Seeds of half a group would play with another environment seed than the rest of it."""
    args, _ = make_args(tmp_path / "run", tmp_path, "reinforce", {}, restarts=1)
    unused: Any = None
    collector = Collector(args, TrainerState(episodes=6, next_seed=6), unused, unused, unused)
    collector.group = 4
    for _ in range(2):
        collector._align()
        assert collector.state.next_seed == 8


def test_the_checkpoint_that_engines_load_is_kept(tmp_path: Path) -> None:
    """An engine that restarts late loads the policy from which the run resumed, however many checkpoints follow."""
    first = commit(begin(tmp_path, 1), keep=2)
    for cycle in (2, 3, 4):
        commit(begin(tmp_path, cycle), keep=2, in_use=first)
    assert [path.name for path in checkpoint_folders(tmp_path)] == ["cycle-00001", "cycle-00003", "cycle-00004"]
    commit(begin(tmp_path, 5), keep=2)
    assert [path.name for path in checkpoint_folders(tmp_path)] == ["cycle-00004", "cycle-00005"]


def test_ranks_that_are_asked_to_end_write_a_checkpoint_of_the_cycle(tmp_path: Path) -> None:
    """They do so where none is due, and leave an evaluation to the resumed run, which reaches the same end."""
    model = save_model(tmp_path / "model")
    settings = {"cycles": 4, "checkpoint_every": 3, "evaluation_every": 2, "evaluation_episodes": 4}
    args, events = make_args(tmp_path / "run", model, "reinforce", {}, **settings)
    stop = tmp_path / "run" / STOP_FILE
    trainer = make_trainer(args)
    assert not trainer.cycle(online=True)
    stop.touch()
    trainer.run()
    assert [event["cycle"] for event in events if event["kind"] == "cycle"] == [1, 2]
    assert [event for event in events if event["kind"] == "evaluation"] == []
    (checkpoint,) = checkpoint_folders(tmp_path / "run" / "checkpoints")
    assert checkpoint.name == "cycle-00002"

    stop.unlink()
    args, events = make_args(tmp_path / "run", model, "reinforce", {}, resume=checkpoint, **settings)
    train(args)
    shown = [event.get("name") or event["cycle"] for event in events if event["kind"] in ("cycle", "evaluation")]
    assert shown == ["cycle-2", 3, 4, "final"]
