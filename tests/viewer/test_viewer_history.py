"""The history of a real run, in one process: its columns agree with each other, and the documented programs read it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from archer.config.loading import config_from_tree, dump_config
from archer.driver.inline import run_inline
from archer.driver.run_folder import RunFolder
from buffer.archive import read_archive
from buffer.episodes.schema import batch_to_episodes
from learner.history.folder import EPISODES, history_files

DOCS = Path(__file__).resolve().parents[2] / "docs" / "viewer.md"
SMALL = {"vocab_size": 400, "hidden_size": 32, "layers": 1, "heads": 1, "intermediate_size": 64, "max_positions": 400}
TREE = {
    "name": "small",
    "mode": "inline",
    "cycles": 2,
    "episodes_per_cycle": 8,
    "model": {"build": SMALL},
    "env": {"id": "key_door", "kwargs": {"maps": 1, "max_turns": 6}},
    "demonstrations": {"episodes": 16, "skill": 0.3},
    "rollout": {"sampling": {"max_tokens": 6}, "episodes_at_once": 8},
    "learner": {
        "micro_batch": 4,
        "clone": {"steps": 4, "batch": 8, "lr": 3e-3},
        "critic": {"unit": "episode", "batch": 4, "steps_per_cycle": 2, "warmup_cycles": 0},
        "actor": {"unit": "episode", "batch": 4, "steps_per_cycle": 1},
        "ppo": {"batch": 4},
    },
    "evaluation": {"episodes": 4, "every": 1},
    "history": {"episodes_per_cycle": 4, "evaluation_episodes": 2},
}


def _run(root: Path, *overrides: str) -> Path:
    config = config_from_tree(TREE, overrides, source="the test")
    with RunFolder.create(root, config.name) as folder:
        folder.write(folder.config_path, dump_config(config))
        run_inline(config, folder, resume=False)
        return folder.path


@pytest.fixture(scope="module")
def run(one_rank: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _run(tmp_path_factory.mktemp("runs"))


def test_episodes_of_every_stage_are_kept_with_their_turns(run: Path) -> None:
    episodes = pd.read_parquet(run / "history" / "episodes")
    counts = episodes.groupby(["stage", "cycle"]).size().to_dict()
    kept = {("evaluation", 0): 2, ("evaluation", 1): 2, ("evaluation", 2): 2, ("training", 1): 4, ("training", 2): 4}
    assert counts == kept
    assert set(episodes["evaluation"].dropna()) == {"clone", "cycle-1", "final"}
    evaluated = episodes[episodes["stage"] == "evaluation"]
    assert evaluated.groupby("evaluation")["seed"].apply(lambda seeds: tuple(sorted(seeds))).nunique() == 1, (
        "versions play the same seeds"
    )
    for _, row in episodes.iterrows():
        turns = len(row["reward"])
        assert all(len(row[name]) == turns for name in ("stop", "action_seconds", "env_seconds", "invalid"))
        assert set(row["stop"]) <= {"stop token", "stop text", "token limit"}
        assert (np.array(row["action_seconds"]) > 0).all()
        assert len(row["action_text"]) == len(row["logprobs"]) == len(row["versions"])
        assert row["version"] == row["versions"].max()
    for path in history_files(run, EPISODES):
        assert batch_to_episodes(next(iter(read_archive(path)))), "an archive like any other"


def test_values_belong_to_turns_of_the_cycle_and_agree_with_each_other(run: Path) -> None:
    values = pd.read_parquet(run / "history" / "values")
    assert set(values["cycle"]) == {1, 2}
    assert not values.duplicated(["episode_id", "turn", "cycle"]).any()
    assert values[["q", "v", "advantage", "target"]].notna().all().all()
    episodes = pd.read_parquet(run / "history" / "episodes").set_index("episode_id")
    known = values[values["episode_id"].isin(episodes.index)]
    assert len(known)
    assert all(row.turn < len(episodes.loc[row.episode_id, "reward"]) for row in known.itertuples())


def test_the_critic_of_the_end_values_the_kept_episodes_again(run: Path) -> None:
    newest = pd.read_parquet(run / "history" / "newest")
    assert set(newest["cycle"]) == {2}, "those of the evaluation after cycle 1 are replaced"
    assert newest[["q", "v", "advantage"]].notna().all().all()
    assert newest["target"].isna().all()
    episodes = pd.read_parquet(run / "history" / "episodes")
    training = episodes[episodes["stage"] == "training"]
    assert {(row.episode_id, turn) for row in training.itertuples() for turn in range(len(row.reward))} == set(
        zip(newest["episode_id"], newest["turn"], strict=True)
    )
    # A step has changed the critic since it last used a turn.
    used = pd.read_parquet(run / "history" / "values")
    both = newest.merge(used[used["cycle"] == 1], on=["episode_id", "turn"], suffixes=("", "_used"))
    assert len(both)
    assert (both["q"] != both["q_used"]).any()


@pytest.mark.usefixtures("one_rank")
def test_a_critic_whose_v_is_of_fresh_actions_values_kept_episodes_at_the_end_only(tmp_path: Path) -> None:
    run = _run(tmp_path, "learner.critic.value=fresh", "history.revalued_episodes=3")
    newest = pd.read_parquet(run / "history" / "newest")
    assert newest["episode_id"].nunique() <= 3
    assert set(newest["cycle"]) == {2}
    assert newest[["q", "v", "advantage"]].notna().all().all()


@pytest.mark.usefixtures("one_rank")
def test_ppo_keeps_the_advantages_of_tokens_whose_mean_is_that_of_the_turn(tmp_path: Path) -> None:
    run = _run(tmp_path, "algorithm=ppo", "cycles=1", "evaluation.every=0")
    values = pd.read_parquet(run / "history" / "values")
    assert values["q"].isna().all()
    assert values[["v", "target"]].notna().all().all()
    means = values["token_advantage"].map(np.mean)
    np.testing.assert_allclose(means, values["advantage"], rtol=1e-4, atol=1e-6)
    episodes = pd.read_parquet(run / "history" / "episodes").set_index("episode_id")
    for row in values[values["episode_id"].isin(episodes.index)].itertuples():
        episode = episodes.loc[row.episode_id]
        assert len(row.token_advantage) == episode["action_end"][row.turn] - episode["action_start"][row.turn]


def test_the_documented_programs_read_a_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run)
    programs = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert len(programs) == 2
    names: dict[str, pd.DataFrame] = {}
    for program in programs:
        exec(compile(program, str(DOCS), "exec"), names)
    assert {"stage", "cycle", "return"} <= set(names["episodes"])
    assert list(names["surprises"])[:5] == ["episode_id", "turn", "cycle", "q", "target"]
    assert len(names["surprises"]) == 10


def test_report_and_top_read_a_real_run(run: Path, tmp_path: Path) -> None:
    from archer.cli import app

    target = tmp_path / "real.html"
    done = CliRunner().invoke(app, ["report", str(run), "--out", str(target)])
    assert done.exit_code == 0, done.output
    assert "assistant" in target.read_text()
    shown = CliRunner().invoke(app, ["top", str(run), "--once"])
    assert "cycle-1" in shown.output, shown.output
