"""Statistics, summary, learning curve and progress."""

import io
import json
import math
import os
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from rich.console import Console

from archer.driver.journal import Journal
from archer.driver.progress import Progress, RunState, duration, sparkline
from archer.driver.run_folder import RunFolder, read_rows
from archer.errors import RunError
from archer.results.plots import learning_curve
from archer.results.statistics import EvalResult, bootstrap_interval
from archer.results.summary import print_summary, summarise


def cycle(number: int, **metrics: float) -> dict[str, Any]:
    values = {
        "return": -15.0 + number,
        "episodes": 64 * number,
        "policy_version": number + 1,
        "proof_gap": 1e-6 * number,
    }
    return {"kind": "cycle", "cycle": number, "time": 10.0 * number, "metrics": {**values, **metrics}}


def evaluation(name: str, returns: list[float], collected: int) -> dict[str, Any]:
    return {
        "kind": "evaluation",
        "name": name,
        "collected_episodes": collected,
        "returns": returns,
        "successes": [1.0, math.nan, 0.0, 1.0][: len(returns)],
        "turns": [10] * len(returns),
        "invalid_actions": [1] * len(returns),
    }


def test_bootstrap_interval_has_its_coverage() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        low, high = bootstrap_interval(random.normal(3.0, 2.0, 60), resamples=1000, seed=trial)
        hits += low <= 3.0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_bootstrap_interval_at_its_ends() -> None:
    assert bootstrap_interval([2.0, 2.0]) == (2.0, 2.0)
    data = np.arange(100.0)
    low, high = bootstrap_interval(data)
    spread = 1.96 * data.std() / 10
    assert low == pytest.approx(49.5 - spread, abs=0.4)
    assert high == pytest.approx(49.5 + spread, abs=0.4)
    assert bootstrap_interval(data) == (low, high)
    with pytest.raises(ValueError, match="no values"):
        bootstrap_interval([])


def test_evaluation_statistics() -> None:
    result = EvalResult.from_event(evaluation("final", [-4.0, -6.0, -20.0, -2.0], 100), env="x")
    assert (result.return_mean, result.episodes, result.mean_turns, result.invalid_share) == (-8.0, 4, 10.0, 0.1)
    assert result.success_rate == pytest.approx(2 / 3)  # NaN is not counted
    assert result.return_low < -8.0 < result.return_high
    with pytest.raises(RunError, match="no episode"):
        EvalResult.from_event(evaluation("final", [], 100), env="x")


def test_task_without_success_has_no_rate() -> None:
    event = {**evaluation("final", [-4.0], 100), "successes": [None]}
    assert EvalResult.from_event(event, env="x").success_rate is None


def play_run(tmp_path: Path, console: Console) -> RunFolder:
    folder = RunFolder.create(tmp_path, "demo")
    progress = Progress("demo", 3, console)
    journal = Journal(folder, progress, env="twenty")
    journal.handle({"kind": "stage", "stage": "clone"})
    losses = {"clone/held_out_action_loss": 0.5, "clone/held_out_observation_loss": 1.25, "clone/held_out_loss": 1.75}
    journal.handle({"kind": "held_out", "step": 100, "metrics": dict.fromkeys(losses, 9.0)})
    journal.handle({"kind": "held_out", "step": 125, "metrics": losses})
    journal.handle(evaluation("clone", [-16.0, -14.0], 0))
    for number in (1, 2, 3):
        journal.handle({"kind": "phase", "cycle": number - 1, "phase": "critic"})
        journal.handle({"kind": "step", "phase": "critic", "step": 1, "steps": 2, "metrics": {"critic/q_loss": 0.5}})
        journal.handle(cycle(number, success_rate=math.nan))
    journal.handle(evaluation("final", [-9.0, -11.0], 192))
    return folder


def test_journal_writes_the_rows_of_summary_and_curve(tmp_path: Path) -> None:
    output = io.StringIO()
    with play_run(tmp_path, Console(file=output, width=200)) as folder:
        rows = folder.rows()
        assert [row["step"] for row in rows[:2]] == [100, 125]
        assert [(row["kind"], row["cycle"]) for row in rows[2:]] == [
            ("evaluation", 0),
            ("cycle", 1),
            ("cycle", 2),
            ("cycle", 3),
            ("evaluation", 3),
        ]
        assert rows[3]["metrics"]["success_rate"] is None
        assert "returns" not in rows[2]
        state = {"cycle": 3, "version": 4, "episodes": 192, "turns": 3000, "proof_max_gap": 5e-5}
        summary = summarise(rows, name="demo", env="twenty", wall_seconds=12.34, state=state)
        folder.write_summary(summary)
        on_disk = json.loads(folder.summary_path.read_text())
    asked = ("bc_return", "final_return", "episodes", "cycles", "wall_seconds", "policy_version", "proof_max_gap")
    assert [on_disk[key] for key in asked] == [-15.0, -10.0, 192, 3, 12.3, 4, 5e-5]
    assert on_disk["improvement"] == 5.0
    assert on_disk["clone_held_out"] == {"action_loss": 0.5, "observation_loss": 1.25, "steps": 125}
    lines = output.getvalue().splitlines()
    assert len(lines) == 8  # stage, two losses, two evaluations, three cycles; no line for phases and steps
    assert lines[0] == "stage: clone"
    assert lines[2] == "clone after 125 steps: held-out loss 0.500 nats per action token, 1.250 per observation token"
    assert lines[4].startswith("cycle 1/3  return -14.00  episodes 64")
    assert "evaluation of final: return -10.00 (95% " in lines[-1]
    print_summary(summary, Console(file=output, width=100))
    assert "+5.00" in output.getvalue()
    assert "nats a token; observations 1.250; 125 steps" in output.getvalue()


MEASURED = {
    "critic/explained_variance": 0.42,
    "critic/correlation": 0.7,
    "critic/bias": 0.25,
    "critic/value_start": -7.75,
    "critic/return_start": -8.0,
    "critic/exact_correlation": 0.9,
    "critic/exact_best": 0.95,
    "critic/exact_regret": 0.04,
}


def summary_of(rows: list[dict[str, Any]], **more: Any) -> tuple[dict[str, Any], str]:
    """Return the summary of a run, and what is printed of it."""
    output = io.StringIO()
    summary = summarise(rows, name="a", env="b", wall_seconds=1.0, **more)
    print_summary(summary, Console(file=output, width=200))
    return summary, output.getvalue()


def test_summary_shows_the_last_figures_of_the_critic() -> None:
    summary, text = summary_of([cycle(1, **MEASURED), cycle(2, **{**MEASURED, "critic/bias": 0.5}), cycle(3)])
    assert summary["critic"] == {name.removeprefix("critic/"): value for name, value in MEASURED.items()} | {
        "bias": 0.5
    }
    for words in ("0.42", "V(s_0) -7.75, return -8.00, bias +0.50", "0.90", "best action in 95%, regret 0.04 a turn"):
        assert words in text, words
    assert summary["notes"] == []


@pytest.mark.parametrize(("algorithm", "field"), [("archer", "critic.warmup_steps"), ("ppo", "ppo.warmup_cycles")])
def test_a_critic_that_explains_nothing_is_named_with_a_remedy(algorithm: str, field: str) -> None:
    useless = {**MEASURED, "critic/explained_variance": -0.13}
    summary, text = summary_of([cycle(1, **MEASURED), cycle(2, **useless)], algorithm=algorithm)
    (note,) = summary["notes"]
    assert "explained variance is -0.13" in note
    assert f"learner.{field}" in note
    assert note in text
    assert "clone.observation_weight=1" in note
    (other,) = summary_of([cycle(1, **useless)], observations=True)[0]["notes"]
    assert "observation" not in other
    assert summary_of([cycle(1, **useless), cycle(2, **MEASURED)])[0]["notes"] == []


def test_an_explained_variance_just_below_zero_has_no_sign() -> None:
    summary, text = summary_of([cycle(1, **{**MEASURED, "critic/explained_variance": -0.001})])
    assert "explained variance is 0.00" in summary["notes"][0]
    assert "-0.00" not in text


def test_figures_of_a_critic_without_spread_are_shown_as_none() -> None:
    plain = {name: MEASURED[name] for name in ("critic/bias", "critic/value_start", "critic/return_start")}
    assert "none" in summary_of([cycle(1, **plain)])[1]


def journal_of(tmp_path: Path, output: io.StringIO, *, greedy: bool = False) -> Journal:
    """Return the journal of a new run, or of one that goes on."""
    (tmp_path / "demo").mkdir(parents=True, exist_ok=True)
    folder = RunFolder(tmp_path / "demo", os.open(os.devnull, os.O_RDONLY))
    return Journal(folder, Progress("demo", 9, Console(file=output, width=200)), env="twenty", greedy=greedy)


def fallen(number: int, mean: float) -> dict[str, Any]:
    """Return a cycle whose 64 episodes have this mean return and a standard deviation of 4, an interval of +-0.98."""
    return cycle(number, **{"return": mean, "return_std": 4.0})


CLONE = evaluation("clone", [-16.0, -14.0] * 50, 0)
"""A mean of -15, with an interval of about +-0.2."""


def test_a_return_below_the_clones_is_named_once_until_it_recovers(tmp_path: Path) -> None:
    output = io.StringIO()
    journal = journal_of(tmp_path, output)
    journal.handle(CLONE)
    for number, mean in enumerate((-15.9, -16.1, -17.0, -15.0, -16.5), start=1):
        journal.handle(fallen(number, mean))
    journal.handle(evaluation("final", [-17.0, -15.0] * 50, 320))
    warnings = [line for line in output.getvalue().splitlines() if "below that of the clone" in line]
    assert [line.partition(":")[0] for line in warnings] == ["cycle 2", "cycle 5"]
    assert "the return -16.10 is below that of the clone, -15.00, by more than the 95% interval" in warnings[0]
    (note,) = summarise(read_rows(tmp_path / "demo" / "metrics.jsonl"), name="a", env="b", wall_seconds=1.0)["notes"]
    assert note.endswith("-15.00, by more than the interval: cycle 2, cycle 3, cycle 5, evaluation final.")


def test_a_resumed_run_still_knows_its_clone_and_a_greedy_one_is_not_compared_with_samples(tmp_path: Path) -> None:
    for greedy in (False, True):
        root, output = tmp_path / str(greedy), io.StringIO()
        journal = journal_of(root, io.StringIO(), greedy=greedy)
        journal.handle(CLONE)
        journal.handle(fallen(1, -15.0))
        resumed = journal_of(root, output, greedy=greedy)
        resumed.handle(fallen(2, -18.0))
        assert ("below that of the clone" in output.getvalue()) is not greedy


def test_summary_names_the_best_policy_and_how_to_play_the_last() -> None:
    best = {**evaluation("cycle-6", [-8.0, -7.0], 384), "cycle": 6}
    rows = [
        {"kind": "evaluation", "name": "final", "cycle": 9, "return_mean": -11.0, "return_low": -12, "return_high": -10}
    ]
    summary, text = summary_of(rows, best=best)
    assert (summary["best_return"], summary["best_cycle"], summary["best_evaluation"]) == (-7.5, 6, "cycle-6")
    assert summary["best_interval"] == [-8.0, -7.0]
    (note,) = summary["notes"]
    assert "policy of cycle 6, which `archer eval` plays; the final return is outside the interval" in note
    assert "--last" in text
    assert "best policy" in text
    same = summary_of(rows, best={**best, "name": "final", "cycle": 9})[0]
    assert same["notes"] == []


def test_summary_of_a_run_without_cycles_has_nulls() -> None:
    summary = summarise([], name="a", env="b", wall_seconds=1.0)
    assert (summary["bc_return"], summary["final_return"], summary["cycles"]) == (None, None, 0)
    print_summary(summary, Console(file=io.StringIO()))


def test_curve_has_its_size_and_its_colours(tmp_path: Path) -> None:
    with play_run(tmp_path, Console(file=io.StringIO())) as folder:
        path = learning_curve(folder.rows(), folder.curve_path, title="Twenty Questions")
    picture = matplotlib.image.imread(path)
    assert picture.shape[:2] == (900, 1600)
    line = np.array([0x1F, 0x6F, 0x8B]) / 255
    clone = np.array([0xC8, 0x55, 0x3D]) / 255
    for colour in (line, clone):
        assert (np.abs(picture[..., :3] - colour).max(axis=-1) < 0.02).sum() > 100
    assert [entry.name for entry in path.parent.iterdir() if entry.suffix == ".png"] == ["learning_curve.png"]


def test_curve_has_the_panels_of_the_critic_where_it_was_measured(tmp_path: Path) -> None:
    rows = [cycle(1, **MEASURED), cycle(2), cycle(3, **{k: v for k, v in MEASURED.items() if "explained" not in k})]
    picture = matplotlib.image.imread(learning_curve(rows, tmp_path / "x.png", title="x"))
    assert picture.shape[:2] == (1600, 1600)
    value = (np.abs(picture[..., :3] - np.array([0xC8, 0x55, 0x3D]) / 255).max(axis=-1) < 0.02).sum(axis=1)
    assert value[1190:].sum() > 100  # V(s_0), in the lowest panel


def test_curve_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no curve"):
        learning_curve([], tmp_path / "x.png", title="")


def test_live_panel_shows_the_events() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=100, color_system=None)
    with Progress("demo", 5, console) as progress:
        progress.handle({"kind": "stage", "stage": "train", "time": 0.0})
        progress.handle(cycle(1, staleness=0.25, tokens_per_second=3210.0, **MEASURED))
        progress.handle(cycle(2))
        progress.handle({"kind": "phase", "cycle": 2, "phase": "critic"})
        progress.handle({"kind": "step", "phase": "critic", "step": 7, "steps": 50, "metrics": {"critic/q_loss": 0.25}})
        progress.message("a message")
    text = output.getvalue()
    for words in (
        "cycle 2 of 5",
        "critic",
        "7/50",
        "return -13.00",
        "tokens/s 3,210",
        "staleness 0.25",
        "variance 0.42",
        "a message",
    ):
        assert words in text, words
    assert "critic q loss 0.2500" in text
    assert "about 30 s left" in text
    assert progress.state.eta() == 30.0


def test_evaluation_between_cycles_ends_with_the_next_phase() -> None:
    state = RunState("demo", 5)
    for event in (
        {"kind": "stage", "stage": "train", "time": 0.0},
        cycle(1),
        {"kind": "stage", "stage": "evaluate", "time": 11.0},
        {"kind": "phase", "cycle": 1, "phase": "rollout"},
        cycle(2),
    ):
        state.apply(event)
    assert state.stage == "train"
    assert state.eta() == 30.0


def test_progress_is_plain_without_a_terminal() -> None:
    output = io.StringIO()
    with Progress("demo", 5, Console(file=output)) as progress:
        progress.handle({"kind": "stage", "stage": "clone"})
        progress.handle({"kind": "phase", "cycle": 0, "phase": "rollout"})
    assert output.getvalue() == "stage: clone\n"


def test_sparkline_and_duration() -> None:
    assert sparkline([0.0, 1.0, 2.0, 7.0], 10) == "▁▂▃█"
    assert sparkline([5.0, 5.0], 10) == "▄▄"
    assert len(sparkline(list(range(100)), 10)) == 10
    assert [duration(s) for s in (5, 65, 3725)] == ["5 s", "1 min 05 s", "1 h 02 min"]
