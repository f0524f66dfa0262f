"""The measures of the comparison of methods on hand-made rows, its cells, and its page."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.efficiency_cells import Cell, command_of, digest, play_all, read
from bench.efficiency_figures import (
    Reached,
    costs,
    curve,
    differing_keys,
    episodes_over_seeds,
    episodes_to,
    evaluation_return,
    interval,
    iqm,
    over_seeds,
    over_tasks,
    ratio,
)
from bench.efficiency_page import episodes_text, ratio_text, replaced, write_page
from bench.efficiency_plot import draw_curves, draw_ratios
from bench.efficiency_tasks import METHODS, TASKS
from bench.sample_efficiency import cells_of, earlier_runs, found_cells, noted_commands, options

PAGE = Path(__file__).resolve().parents[2] / "docs" / "results.md"


def rows(*returns: float | None, size: int = 64, final: float | None = None) -> list[dict[str, Any]]:
    """Return the rows of a run: a cycle of `size` episodes for each return, an offline cycle for None."""
    made: list[dict[str, Any]] = []
    episodes = 0
    for number, value in enumerate(returns, start=1):
        episodes += 0 if value is None else size
        metrics = {
            "episodes": episodes,
            "critic/steps": 10.0,
            "fresh_actions": 100.0,
            "processor_seconds": 5.0 * number,
        }
        made.append(
            {"kind": "cycle", "cycle": number, "metrics": metrics | ({} if value is None else {"return": value})}
        )
    if final is not None:
        made.append({"kind": "evaluation", "name": "final", "return_mean": final})
    return made


def reached(*returns: float | None, final: float | None = None) -> Reached:
    return episodes_to(rows(*returns, final=final), -12.0)


def test_episodes_of_the_cycle_that_passes_were_not_learnt_from() -> None:
    assert reached(-20, -13, -12, -11) == Reached(128, censored=False)
    assert reached(-5, -20) == Reached(0, censored=False)
    learnt, returns = curve(rows(-20, None, -13))
    assert (learnt.tolist(), returns.tolist()) == ([0, 64], [-20, -13])


def test_run_that_never_gets_there_is_censored_at_all_its_episodes() -> None:
    assert reached(-20, -20, -20) == Reached(192, censored=True)


def test_offline_cycles_cost_no_episodes_and_an_offline_run_is_judged_by_its_end() -> None:
    assert reached(None, None, -20, -10) == Reached(64, censored=False)
    assert reached(None, final=-11.0) == Reached(0, censored=False)
    assert reached(None, final=-13.0) == Reached(0, censored=True)
    with pytest.raises(ValueError, match="no final evaluation"):
        reached(None)


def test_costs_cover_the_whole_run_or_what_was_learnt_from() -> None:
    of_run = rows(None, -20, -20, -5)
    assert costs(of_run) == {
        "critic_steps": 40,
        "actor_steps": 0,
        "fresh_actions": 400,
        "processor_seconds": 20.0,
    }
    part = costs(of_run, episodes_to(of_run, -12.0))
    assert (part["critic_steps"], part["fresh_actions"], part["processor_seconds"]) == (30, 300, 15.0)
    assert costs(rows(-5), Reached(0, censored=False))["processor_seconds"] == 0.0


def test_interquartile_mean_drops_a_quarter_at_each_end() -> None:
    assert iqm(np.array([100.0, 1, 2, 3, -50])) == 2.0
    assert iqm(np.array([1.0, 2, 6])) == 3.0
    assert iqm(np.arange(8.0)[None]).tolist() == [3.5]


def test_interval_of_equal_values_has_no_width_and_strata_are_drawn_apart() -> None:
    assert interval([[4.0, 4.0]]) == {"iqm": 4.0, "low": 4.0, "high": 4.0, "seeds": 2}
    # Drawn from one pool of both, some resamples would hold one task alone.
    assert interval([[0.0] * 4, [10.0] * 4]) == {"iqm": 5.0, "low": 5.0, "high": 5.0, "seeds": 8}


def test_upper_end_is_open_where_runs_never_got_there() -> None:
    known = [Reached(n, False) for n in (100, 200, 300, 400)]
    figure = episodes_over_seeds(known)
    assert (figure["iqm"], figure["bound"], figure["censored"]) == (250, "", 0)
    assert figure["low"] is not None
    assert figure["high"] is not None
    # One of five is in the quarter that is dropped: the mean is known, its upper end is not.
    one = episodes_over_seeds([*known, Reached(900, True)])
    assert (one["iqm"], one["bound"], one["high"], one["censored"]) == (300, "", None, 1)
    two = episodes_over_seeds([*known[:3], Reached(900, True), Reached(900, True)])
    assert two["bound"] == ">"
    assert episodes_over_seeds(known, beside=512)["iqm"] == 762
    assert episodes_text(two) == f"> 467 ({two['low']:,.0f} to ∞; 2 never)"


@pytest.mark.parametrize(("ppo", "archer", "bound"), [(0, 0, ""), (1, 0, ">"), (0, 1, "<"), (1, 1, "?")])
def test_ratio_names_which_way_it_is_bounded(ppo: int, archer: int, bound: str) -> None:
    got = ratio([Reached(800, bool(ppo))], [Reached(200, bool(archer))])
    assert got == {"ratio": 4.0, "bound": bound, "low": 0.0 if archer else 4.0, "high": None if ppo else 4.0}


def test_ratio_resamples_both_sides_and_repeats_itself() -> None:
    ppo, archer = [Reached(n, False) for n in (600, 1000)], [Reached(n, False) for n in (100, 300)]
    got = ratio(ppo, archer)
    assert (got["ratio"], got["low"], got["high"]) == (4.0, 2.0, 10.0)
    assert ratio(ppo, archer) == got
    assert ratio(ppo, archer, beside=200)["ratio"] == 2.5


def test_method_that_needs_no_episode_has_no_ratio() -> None:
    got = ratio([Reached(320, False)], [Reached(0, False)])
    assert (got["ratio"], ratio_text(got)) == (None, "no episode")
    assert ratio([Reached(0, False)], [Reached(0, False)])["ratio"] == 1.0
    assert ratio([Reached(320, False)], [Reached(0, False)], beside=320)["ratio"] == 2.0


def test_last_evaluation_of_a_name_counts() -> None:
    evaluations = [{"kind": "evaluation", "name": "final", "return_mean": value} for value in (-9.0, -4.0)]
    assert evaluation_return(evaluations, "final") == -4.0
    assert evaluation_return(evaluations, "clone") is None


def test_differing_keys_are_dotted() -> None:
    one = {"seed": 0, "learner": {"lr": 1.0, "steps": 2}}
    assert differing_keys(one, {"seed": 0, "learner": {"lr": 2.0}}) == ["learner.lr", "learner.steps"]
    assert differing_keys(one, one) == []


@pytest.mark.parametrize("task", TASKS)
def test_every_task_and_method_is_a_valid_configuration(task: str, tmp_path: Path) -> None:
    by_method = {name: Cell(task, name, 3, tmp_path).resolved() for name in METHODS}
    assert {config["mode"] for config in by_method.values()} == {"inline"}
    assert {config["seed"] for config in by_method.values()} == {3}
    clones = [
        by_method[name]["learner"]["clone"] for name in ("archer", "archer_offline", "ppo", "grpo", "filtered_bc")
    ]
    assert all(clone == clones[0] for clone in clones)
    assert by_method["archer_offline"]["offline_cycles"] == by_method["archer_offline"]["cycles"] > 0
    assert by_method["ppo_paper"]["cycles"] * 1024 == TASKS[task].episodes["paper"]


def test_a_method_without_a_part_of_the_recipe_differs_in_that_part_alone(tmp_path: Path) -> None:
    """Each part belongs to the recipe of one of two tasks at least."""
    tasks = ("key_door_1", "twenty_questions_subset")
    recipes = {task: Cell(task, "archer", 0, tmp_path).resolved() for task in tasks}
    for name, method in METHODS.items():
        if method.family == "left out":
            others = {task: Cell(task, name, 0, tmp_path).resolved() for task in tasks}
            differ = {key for task in tasks for key in differing_keys(recipes[task], others[task]) if key != "name"}
            assert differ, name
            assert differ <= {setting.partition("=")[0] for setting in method.settings}, name


TINY = (
    "demonstrations.episodes=24",
    "model.build={vocab_size: 320, hidden_size: 32, layers: 1, heads: 1, intermediate_size: 32, max_positions: 640}",
    "learner.clone={steps: 2, batch: 4, observation_weight: 1.0}",
    "learner.critic.batch=4",
    "learner.critic.steps_per_cycle=1",
    "learner.critic.warmup_steps=1",
    "learner.critic.fresh_per_state=2",
    "learner.actor.batch=4",
    "learner.actor.steps_per_cycle=1",
    "learner.actor.epochs=1",
    "learner.actor.fresh_per_state=2",
    "learner.diagnosis_episodes=0",
    "episodes_per_cycle=4",
    "evaluation.episodes=2",
    "evaluation.every=0",
    "checkpoint.every=1",
)


def test_cells_run_are_skipped_lengthened_and_refused(tmp_path: Path) -> None:
    cells = [Cell("key_door_1", method, 0, tmp_path, TINY, episodes=32) for method in ("archer", "ppo")]
    assert all(read(cell) is None for cell in cells)
    assert play_all(cells, jobs=1) == []
    runs = [run for cell in cells if (run := read(cell)) is not None]
    assert [run["episodes"] for run in runs] == [4, 4]
    assert [run["learnt"] for run in runs] == [[0], [0]]
    assert [run["demonstrations"] for run in runs] == [24, 24]
    archer, ppo = (run["costs"] for run in runs)
    assert (archer["critic_steps"], archer["actor_steps"]) == (2, 1)
    assert archer["fresh_actions"] > 0 == ppo["fresh_actions"]
    assert min(archer["processor_seconds"], ppo["processor_seconds"]) > 0
    assert json.loads(json.dumps(runs)) == runs

    assert [command_of(cell) for cell in cells] == [None, None]
    longer = command_of(Cell("key_door_1", "ppo", 0, tmp_path, TINY, episodes=64))
    assert longer is not None
    assert longer[-3:] == ["--resume", str(tmp_path / "key_door_1-ppo-0"), "cycles=2"]
    other = Cell("key_door_1", "ppo", 0, tmp_path, (*TINY, "learner.ppo.lr=1e-5"))
    assert read(other) is None
    with pytest.raises(ValueError, match=r"other settings \(learner\.ppo\.lr\)"):
        command_of(other)
    (problem,) = play_all([other], jobs=1)
    assert "delete it, or choose another --folder" in problem


def test_json_covers_the_runs_of_all_commands_and_names_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("webshop-ppo-7", "key_door_1-archer-10", "key_door_1-archer-9", "something-else"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr("sys.argv", ["program", "--folder", str(tmp_path), "--tasks", "key_door_1", "--out=x.json"])
    arguments = options()
    assert [cell.name for cell in cells_of(arguments)][:2] == ["key_door_1-archer-0", "key_door_1-archer_offline-0"]
    found = [cell.name for cell in found_cells(arguments)]
    assert found == ["key_door_1-archer-9", "key_door_1-archer-10", "webshop-ppo-7"]
    this = "python bench/sample_efficiency.py --tasks key_door_1"
    assert [noted_commands(tmp_path, add=add) for add in (False, True, True)] == [[], [this], [this]]


def test_quick_form_is_two_methods_on_one_task() -> None:
    cells = cells_of(options(["--quick", "--seeds", "0", "1"]))
    names = [f"key_door_1-{method}-{seed}" for seed in (0, 1) for method in ("archer", "ppo")]
    assert [cell.name for cell in cells] == names
    assert [cell.resolved()["episodes_per_cycle"] for cell in cells[:2]] == [32, 32]


def run_of(task: str, method: str, seed: int, *returns: float) -> dict[str, Any]:
    made = rows(*returns, size=32, final=returns[-1])
    return {
        "task": task,
        "method": method,
        "seed": seed,
        "episodes": 32 * len(returns),
        "demonstrations": 512,
        "lenient": vars(episodes_to(made, -12.0)),
        "near_optimal": vars(episodes_to(made, -4.0)),
        "clone_return": returns[0],
        "final_return": returns[-1],
        "best_return": max(returns),
        "costs": costs(made),
        "costs_to_near_optimal": costs(made),
        "wall_seconds": 3.0,
        "learnt": [32 * cycle for cycle in range(len(returns))],
        "returns": list(returns),
    }


RUNS = [
    run_of("key_door_1", "archer", 0, -24.0, -10.0, -3.0),
    run_of("key_door_1", "archer", 1, -24.0, -3.5, -3.0),
    run_of("key_door_1", "ppo", 0, -24.0, -20.0, -11.0, -6.0, -3.5),
    run_of("key_door_1", "ppo", 1, -24.0, -20.0, -11.0, -6.0, -3.5),
]


def test_rows_over_seeds_and_tasks() -> None:
    archer, ppo = over_seeds(RUNS, "ppo")
    assert (archer["seeds"], archer["episodes"]) == ([0, 1], 96)
    assert (archer["near_optimal"]["iqm"], ppo["near_optimal"]["iqm"]) == (48, 128)
    assert archer["near_optimal_ratio"]["ratio"] == pytest.approx(128 / 48)
    assert archer["near_optimal_ratio_with_demonstrations"]["ratio"] == pytest.approx(640 / 560)
    scores = {row["method"]: row["iqm"] for row in over_tasks(RUNS, {"key_door_1": -4.0})}
    assert scores == {"archer": 1.05, "ppo": 1.025}
    assert "near_optimal_ratio" not in over_seeds(RUNS[:2], "ppo")[0]


def test_pictures_are_drawn_from_the_rows(tmp_path: Path) -> None:
    path = draw_curves("key_door_1", RUNS, tmp_path / "curves.png", families=("main",))
    bars = draw_ratios(over_seeds(RUNS, "ppo"), "ppo", tmp_path / "ratio.png")
    assert path is not None
    assert bars is not None
    assert min(path.stat().st_size, bars.stat().st_size) > 10_000
    assert draw_curves("key_door_1", RUNS, tmp_path / "none.png", families=("left out",)) is None
    assert draw_ratios([], "ppo", tmp_path / "none.png") is None


def test_page_has_the_tables_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    content = {
        "rows": RUNS,
        "baseline": "ppo",
        "commands": ["python bench/sample_efficiency.py"],
        "machine": {"processor": "a processor", "cores": 2, "memory_gib": 24.0, "python": "3.11"},
        "versions": {"torch": "2"},
    }
    write_page(page, tmp_path / "images", content, None)
    once = page.read_text(encoding="utf-8")
    assert "| `key_door_1` | `archer` | 2 | 48 (32 to 64) | 2.67 (2 to 4) |" in once
    assert "![" in once
    assert "(images/results_ratio.png)" in once
    write_page(page, tmp_path / "images", content, None)
    assert page.read_text(encoding="utf-8") == once
    with pytest.raises(ValueError, match="once each"):
        replaced("no marker", "tasks", [], "the page")


def test_rows_of_the_last_json_are_kept_until_replaced_or_outdated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["program", "--folder", str(tmp_path)])
    out = tmp_path / "x.json"
    cells = {name: Cell("key_door_1", name, 1, tmp_path) for name in ("archer", "ppo", "grpo")}
    earlier = [
        run_of("key_door_1", name, 1, -20, -5) | {"preset": digest("key_door"), "settings": cell.shown}
        for name, cell in cells.items()
    ]
    earlier[1]["settings"] = [text.replace("cycles=24", "cycles=3") for text in earlier[1]["settings"]]
    earlier[2]["settings"] = [text.replace("lr=5e-4", "lr=1e-4") for text in earlier[2]["settings"]]
    arguments = options(["--out", str(out)])
    assert earlier_runs(arguments, []) == ([], [])
    out.write_text(json.dumps({"commands": ["one"], "rows": earlier}))
    # A run of another length is kept, one with another learning rate is not.
    kept, commands = earlier_runs(arguments, [])
    assert ([row["method"] for row in kept], commands) == (["archer", "ppo"], ["one"])
    kept, _ = earlier_runs(arguments, [earlier[0]])
    assert [row["method"] for row in kept] == ["ppo"]
    assert earlier_runs(options(["--out", str(out), "--fresh"]), []) == ([], [])
    out.write_text(json.dumps({"commands": [], "rows": [earlier[0] | {"preset": "another"}]}))
    assert earlier_runs(arguments, []) == ([], [])
