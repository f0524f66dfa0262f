"""The policy of the best evaluation is kept, also over a resume."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from actor_cases import save_model
from safetensors.torch import load_file
from trainer_cases import Memory, Rollouts, make_args, make_session, make_trainer, train

from buffer.rollout_records import CollectReport
from learner.engine.checkpoint_folders import begin, best_policy, checkpoint_folders, commit_best, mean_return
from learner.errors import CheckpointError
from learner.train_args import TrainArgs

pytestmark = pytest.mark.usefixtures("one_rank")

SETTINGS = {"reinforce": {"batch": 4, "lr": 0.01}}


class Graded(Rollouts):
    """Engines whose evaluations have these mean returns, in order."""

    def __init__(self, replay: Memory, means: list[float]) -> None:
        super().__init__(replay)
        self.means = means

    def collect(self, episodes: int, *, first_seed: int, store: bool = True, **more: Any) -> CollectReport:
        report = super().collect(episodes, first_seed=first_seed, store=store, **more)
        if store:
            return report
        spread = np.linspace(-1, 1, episodes, dtype=np.float32)
        return replace(report, returns=self.means.pop(0) + spread)


def graded(tmp_path: Path, means: list[float], **changes: Any) -> TrainArgs:
    """Return arguments of a run of four cycles that evaluates after each of them."""
    model, memory = tmp_path / "model", changes.pop("replay", None) or Memory()
    if not model.exists():
        save_model(model)
    shape = {"cycles": 4, "evaluation_episodes": 3, "evaluation_every": 1, "replay": memory} | changes
    arguments, _ = make_args(tmp_path / "run", model, "reinforce", SETTINGS, **shape)
    return replace(arguments, rollouts=Graded(memory, means))


def weights(policy: Path) -> dict[str, torch.Tensor]:
    return load_file(policy / "policy" / "model.safetensors")


def require_policy_of(run: Path, cycle: int, mean: float) -> None:
    """Assert that `best/` holds only the policy of this cycle, which a checkpoint holds too."""
    found = best_policy(run)
    assert found is not None
    folder, evaluation = found
    assert checkpoint_folders(run / "best") == [folder]
    assert [entry.name for entry in (run / "best").iterdir()] == [f"cycle-{cycle:05d}"]
    assert (evaluation["cycle"], mean_return(evaluation)) == (cycle, pytest.approx(mean))
    kept, saved = weights(folder), weights(run / "checkpoints" / f"cycle-{cycle:05d}")
    assert kept.keys() == saved.keys()
    assert all(torch.equal(kept[name], saved[name]) for name in kept)
    assert (folder / "policy" / "tokenizer.json").is_file()


def test_a_run_keeps_the_policy_of_its_best_evaluation_and_not_the_last(tmp_path: Path) -> None:
    arguments = graded(tmp_path, [-9.0, -5.0, -7.0, -6.0])
    train(arguments)
    require_policy_of(tmp_path / "run", 2, -5.0)
    evaluation = json.loads((tmp_path / "run" / "best" / "cycle-00002" / "evaluation.json").read_text())
    assert (evaluation["name"], evaluation["collected_episodes"]) == ("cycle-2", 8)
    assert evaluation["returns"] == [-6.0, -5.0, -4.0]
    last = weights(tmp_path / "run" / "checkpoints" / "cycle-00004")
    best = weights(tmp_path / "run" / "best" / "cycle-00002")
    assert not all(torch.equal(last[name], best[name]) for name in last)


def test_the_final_evaluation_counts_and_of_two_equal_ones_the_first(tmp_path: Path) -> None:
    train(graded(tmp_path, [-9.0, -5.0, -5.0, -4.0]))
    require_policy_of(tmp_path / "run", 4, -4.0)
    train(graded(tmp_path, [-9.0, -5.0, -5.0, -5.0]))
    require_policy_of(tmp_path / "run", 2, -5.0)


@pytest.mark.parametrize(("means", "best"), [([-6.0, -7.0], 2), ([-6.0, -4.0], 4)])
def test_a_resumed_run_compares_with_the_best_before(tmp_path: Path, means: list[float], best: int) -> None:
    first = graded(tmp_path, [-9.0, -5.0], cycles=2)
    train(first)
    folder = tmp_path / "run" / "checkpoints" / "cycle-00002"
    train(graded(tmp_path, means, replay=first.replay, resume=folder))
    require_policy_of(tmp_path / "run", best, -5.0 if best == 2 else -4.0)


def test_the_clone_is_a_candidate_unless_a_critic_plays(tmp_path: Path) -> None:
    settings = {**SETTINGS, "clone": {"steps": 1, "batch": 4}}
    for scorer, kept in ((None, "clone"), (object(), "final")):
        arguments, _ = make_args(
            tmp_path / kept, save_model(tmp_path / f"{kept}-model"), "reinforce", settings, evaluation_episodes=3
        )
        train(replace(arguments, rollouts=Graded(arguments.replay, [-3.0, -4.0]), scorer=scorer))  # type: ignore[arg-type]
        found = best_policy(tmp_path / kept)
        assert found is not None
        assert found[1]["name"] == kept


def test_a_run_that_keeps_no_best_policy_writes_none(tmp_path: Path) -> None:
    train(graded(tmp_path, [-9.0, -5.0], cycles=2, keep_best=False))
    assert not (tmp_path / "run" / "best").exists()


def test_what_chooses_among_the_actions_is_kept_with_the_policy(tmp_path: Path) -> None:
    trainer = make_trainer(graded(tmp_path, [-1.0]))
    trainer.algorithm.save_chooser = lambda folder: (folder / "critic.pt").touch()  # type: ignore[method-assign]
    trainer.session.evaluate("cycle-0", trainer.algorithm)
    assert (tmp_path / "run" / "best" / "cycle-00000" / "critic.pt").is_file()


def test_a_full_disk_leaves_the_best_policy_before(tmp_path: Path) -> None:
    trainer = make_trainer(graded(tmp_path, [-2.0, -1.0]))
    trainer.session.evaluate("cycle-0", trainer.algorithm)
    trainer.state.cycle = 1

    def no_room(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    trainer.algorithm.save_chooser = no_room  # type: ignore[method-assign]
    with pytest.raises(CheckpointError, match=r"of the evaluation cycle-1, could not be written.*No space left"):
        trainer.session.evaluate("cycle-1", trainer.algorithm)
    assert checkpoint_folders(tmp_path / "run" / "best") == [tmp_path / "run" / "best" / "cycle-00000"]


def test_of_two_policies_that_a_kill_left_the_better_one_counts(tmp_path: Path) -> None:
    better = commit_best(begin(tmp_path / "best", 3), {"returns": [-1.0, -2.0]})
    worse = begin(tmp_path / "best", 4)
    (worse / "evaluation.json").write_text(json.dumps({"returns": [-2.0]}))
    worse.rename(worse.with_suffix(""))
    found = best_policy(tmp_path)
    assert found is not None
    assert found[0] == better
    assert best_policy(tmp_path / "elsewhere") is None


def test_a_run_from_the_start_forgets_the_best_policy_of_an_earlier_attempt(tmp_path: Path) -> None:
    arguments = graded(tmp_path, [])
    commit_best(begin(arguments.run_dir / "best", 3), {"returns": [0.0]})
    make_session(arguments)
    assert best_policy(arguments.run_dir) is None
