"""Measure the episodes from which each method must learn to reach a return, from the same demonstrations and clone.

Each cell (task, method, seed) is an `archer train` in a process of its own, with `mode=inline` unless --real is given.
If the program is started again, it skips complete cells and resumes interrupted ones. `--page` writes the tables and
pictures of docs/results.md from the JSON and runs nothing. bench/README.md defines the measures and gives their limits.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import RESULTS, command_line, parser, print_table, report, say, without_folders  # isort: skip - sets the threads first

from bench.efficiency_cells import Cell, play_all, read, still_valid
from bench.efficiency_figures import over_seeds
from bench.efficiency_page import episodes_text, ratio_text, with_interval, write_page
from bench.efficiency_tasks import METHODS, TASKS

ROOT = Path(__file__).resolve().parents[1]
PAGE, IMAGES = ROOT / "docs" / "results.md", ROOT / "docs" / "images"
BASELINE = "ppo"
QUICK_METHODS = ("archer", "ppo")
QUICK_EPISODES = {"archer": 128, "ppo": 384}
MAIN = tuple(name for name, method in METHODS.items() if method.family == "main")
COLUMNS = {
    "task": "task",
    "method": "method",
    "seeds": "seeds",
    "lenient": "to lenient",
    "near_optimal": "to near-optimal",
    "ratio": f"{BASELINE} / method",
    "best_return": "best policy",
    "final_return": "last policy",
    "processor": "processor s",
}


def options(given: Sequence[str] | None = None) -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--tasks", nargs="+", choices=TASKS, help="all by default, key_door_1 with --quick")
    made.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        help=f"by default {' '.join(MAIN)}; with --quick {' '.join(QUICK_METHODS)}",
    )
    made.add_argument("--seeds", nargs="+", type=int, help="0 1 2 3 4 by default, 0 with --quick")
    made.add_argument("--episodes", type=int, help="episodes of each run in place of the task's")
    made.add_argument("--jobs", type=int, default=1, help="runs at once, with one thread each")
    made.add_argument("--real", action="store_true", help="run on Ray, vLLM and the replay service (mode=sync)")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting for all cells")
    made.add_argument("--folder", type=Path, help="folder of the runs; runs/sample_efficiency by default")
    made.add_argument("--report-only", action="store_true", help="report existing runs, train nothing")
    made.add_argument("--fresh", action="store_true", help="leave out the rows of the JSON that are not in the folder")
    made.add_argument("--page", action="store_true", help="write docs/results.md from the JSON, and do nothing else")
    arguments = made.parse_args(given)
    arguments.tasks = arguments.tasks or (["key_door_1"] if arguments.quick else list(TASKS))
    arguments.methods = arguments.methods or list(QUICK_METHODS if arguments.quick else MAIN)
    arguments.seeds = arguments.seeds or ([0] if arguments.quick else [0, 1, 2, 3, 4])
    if arguments.jobs < 1 or (arguments.episodes is not None and arguments.episodes < 1):
        made.error("--jobs and --episodes must be at least 1")
    if arguments.folder is None:
        # Relative: an absolute path would put this machine's folders into the JSON.
        arguments.folder = Path("runs") / f"sample_efficiency{'_real' * arguments.real}{'_quick' * arguments.quick}"
    return arguments


def cells_of(arguments: argparse.Namespace) -> list[Cell]:
    """Return the cells in the order in which they run: seed by seed, so that an early end leaves whole comparisons."""

    def episodes(method: str) -> int | None:
        return arguments.episodes or (QUICK_EPISODES.get(method) if arguments.quick else None)

    return [
        Cell(task, method, seed, arguments.folder, tuple(arguments.set), arguments.real, episodes(method))
        for task in arguments.tasks
        for seed in arguments.seeds
        for method in arguments.methods
    ]


def found_cells(arguments: argparse.Namespace) -> list[Cell]:
    """Return the cells of all runs in the folder, in the order of tasks, methods and seeds.

    The JSON has all of them, so that the cells can be run by several commands.
    """
    names = {path.name for path in arguments.folder.iterdir() if path.is_dir()}
    seeds = sorted({int(seed) for name in names if (seed := name.rpartition("-")[2]).isdecimal()})
    cells = [
        Cell(task, method, seed, arguments.folder, tuple(arguments.set), arguments.real)
        for task in TASKS
        for method in METHODS
        for seed in seeds
    ]
    return [cell for cell in cells if cell.name in names]


def earlier_runs(
    arguments: argparse.Namespace, runs: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows of the JSON's last version that `runs` do not replace, and its commands.

    The evidence grows over several sessions. A row whose preset or settings have changed since is left out.
    """
    path = arguments.out or json_path(real=arguments.real, quick=arguments.quick)
    if arguments.fresh or not path.is_file():
        return [], []
    content = json.loads(path.read_text(encoding="utf-8"))
    replaced = {(run["task"], run["method"], run["seed"]) for run in runs}
    kept: list[dict[str, Any]] = []
    for row in content["rows"]:
        task, method, seed = row["task"], row["method"], row["seed"]
        if (task, method, seed) in replaced or task not in TASKS or method not in METHODS:
            continue
        cell = Cell(task, method, seed, arguments.folder, tuple(arguments.set), arguments.real)
        if still_valid(cell, row):
            kept.append(row)
        else:
            say(f"  {cell.name}: its row in {path.name} has other settings and is left out")
    return kept, content["commands"]


def in_order(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    tasks, methods = list(TASKS), list(METHODS)
    return sorted(runs, key=lambda run: (tasks.index(run["task"]), methods.index(run["method"]), run["seed"]))


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as the table on the terminal shows it."""
    return {
        "task": row["task"],
        "method": row["method"],
        "seeds": len(row["seeds"]),
        **{name: episodes_text(row[name]) for name in ("lenient", "near_optimal")},
        "ratio": ratio_text(row.get("near_optimal_ratio")),
        **{name: with_interval(row[name]) for name in ("best_return", "final_return")},
        "processor": row["costs"]["processor_seconds"],
    }


def json_path(*, real: bool, quick: bool) -> Path:
    return RESULTS / f"sample_efficiency{'_real' * real}{'-quick' * quick}.json"


def page(arguments: argparse.Namespace) -> None:
    """Write docs/results.md from the JSON files. Exit with a sentence if there is none, or if the page lacks a part."""
    path = arguments.out or json_path(real=False, quick=arguments.quick)
    if not path.is_file():
        sys.exit(f"{path} does not exist; run the cells first, which writes it")
    real = json_path(real=True, quick=False)
    try:
        write_page(
            PAGE,
            IMAGES,
            json.loads(path.read_text(encoding="utf-8")),
            json.loads(real.read_text(encoding="utf-8")) if real.is_file() else None,
        )
    except ValueError as error:
        sys.exit(str(error))
    say(f"written to {PAGE}")


def noted_commands(folder: Path, *, add: bool) -> list[str]:
    """Return the commands that have run cells in `folder`, once each in their order; with `add`, note this one too."""
    path = folder / "commands.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    known = list(dict.fromkeys(without_folders(shlex.split(line)) for line in lines))
    this = command_line("sample_efficiency")
    if add and this not in known:
        known.append(this)
        path.write_text("\n".join(known) + "\n", encoding="utf-8")
    return known


def main() -> None:
    arguments = options()
    if arguments.page:
        page(arguments)
        return
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    commands = noted_commands(folder, add=not arguments.report_only)
    problems: list[str] = []
    if not arguments.report_only:
        try:
            problems = play_all(cells_of(arguments), arguments.jobs)
        except KeyboardInterrupt:
            say("interrupted; the same command resumes, --report-only shows the existing results")
            sys.exit(130)
    runs = [run for cell in found_cells(arguments) if (run := read(cell)) is not None]
    kept, earlier_commands = earlier_runs(arguments, runs)
    runs = in_order([*kept, *runs])
    commands = list(dict.fromkeys([*earlier_commands, *commands]))
    if runs:
        rows = over_seeds(runs, BASELINE)
        print_table("Sample efficiency (interquartile mean, 95% bootstrap)", COLUMNS, [shown(row) for row in rows])
        fewest = min(len(row["seeds"]) for row in rows)
        if fewest < 5:
            say(f"{fewest} seed(s) a method: the intervals cover these seeds only and say little about others")
        variant = "_real" if arguments.real else ""
        more = {
            "baseline": BASELINE,
            "commands": commands,
            "problems": [text.replace(f"{folder}/", "") for text in problems],
        }
        path = report("sample_efficiency", arguments, runs, variant=variant, compact=True, **more)
        say(f"written to {path}")
    else:
        say(f"no finished run with these settings in {folder}")
    sys.stdout.flush()
    sys.exit(1 if problems or not runs else 0)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
