"""Measure the episodes that each method needs to reach a return, on the same tasks from the same demonstrations.

Each cell (task, method, seed) is a real `archer train` in a process of its own, one after the other. If the program is
started again, it skips completed cells and resumes interrupted ones. bench/README.md gives the limits of the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import parser, print_table, report, say  # isort: skip - sets the threads first

import yaml

from archer.config.loading import dump_config, load_config
from archer.config.presets import find_config
from archer.driver.run_folder import latest_checkpoint, read_rows
from archer.errors import ArcherError
from archer.results.statistics import bootstrap_interval
from bench.efficiency_figures import (
    curve,
    differing_keys,
    episodes_to_threshold,
    evaluation_return,
    mean_over_seeds,
    ratio,
)
from bench.efficiency_plot import draw

QUICK = ("archer", "ppo", "filtered_bc")
METHODS = ("archer_from_data", "filtered_bc_from_data", *QUICK)
FROM_DATA = "_from_data"
"""Suffix of the methods that learn from the demonstrations alone before they play. On-policy methods cannot."""
OFFLINE_CYCLES = 6
BASELINE = "ppo"
STOP_TIMEOUT_S = 120.0
# Absolute returns: a fraction of the improvement over the clone would depend on the clone.
THRESHOLDS = {"key_door": -12.0}
COLUMNS = {
    "task": "task",
    "method": "method",
    "seeds": "seeds",
    "episodes": "episodes to threshold",
    "ratio": "ppo / method",
    "final": "final return",
    "seconds": "seconds a run",
}


@dataclass(frozen=True)
class Cell:
    """Describe one run: the task, the method, the seed, the overrides and the folder."""

    task: str  # a preset or a YAML file
    method: str  # a value of `algorithm`, with or without `FROM_DATA`
    seed: int
    overrides: tuple[str, ...]
    folder: Path

    @property
    def name(self) -> str:
        return f"{Path(self.task).stem}-{self.method}-{self.seed}"

    @property
    def run(self) -> Path:
        return self.folder / self.name

    @property
    def settings(self) -> list[str]:
        own = [f"seed={self.seed}", f"name={self.name}", f"runs_dir={self.folder}"]
        algorithm = self.method.removesuffix(FROM_DATA)
        if algorithm != self.method:
            # The cycles that play are as many as for the other methods.
            playing = load_config(self.task, self.overrides).cycles
            own += [f"offline_cycles={OFFLINE_CYCLES}", f"cycles={OFFLINE_CYCLES + playing}"]
        return [*self.overrides, "metrics.port=0", f"algorithm={algorithm}", *own]

    def resolved(self) -> dict[str, Any]:
        return yaml.safe_load(dump_config(load_config(self.task, self.settings)))

    def stored(self) -> dict[str, Any] | None:
        """Return the settings of the run in the run folder, or None if there is no run."""
        path = self.run / "config.yaml"
        return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None


def command_of(cell: Cell) -> list[str] | None:
    """Return the command that starts or resumes a cell, or None if the cell is complete.

    Raises:
        ValueError: if the folder holds a run with other settings.
    """
    archer = [sys.executable, "-m", "archer.cli", "train"]
    stored = cell.stored()
    if stored is not None:
        keys = differing_keys(stored, cell.resolved())
        if keys:
            raise ValueError(
                f"{cell.run} holds a run with other settings ({', '.join(keys)}); delete it, or choose another --folder"
            )
        if (cell.run / "summary.json").is_file():
            return None
        if latest_checkpoint(cell.run) is not None:
            return [*archer, "--resume", str(cell.run)]
    # A run without a checkpoint cannot be resumed, so it starts from the beginning.
    return [*archer, str(find_config(cell.task)), *cell.settings, *(["--overwrite"] if stored is not None else [])]


def play(cell: Cell) -> str | None:
    """Run a cell to its end. Return one sentence if it failed, else None."""
    try:
        command = command_of(cell)
    except (ArcherError, ValueError) as error:
        return f"{cell.name}: {error}"
    if command is None:
        say(f"  {cell.name}: complete, skipped")
        return None
    say(f"  {cell.name}: {'resuming' if '--resume' in command else 'training'}")
    log = cell.folder / f"{cell.name}.log"
    with open(log, "ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            status = process.wait()
        except KeyboardInterrupt:
            # The run received the Ctrl-C too; subprocess.run would kill it before it has stopped its own processes.
            process.wait(timeout=STOP_TIMEOUT_S)
            raise
    if status == 130:
        raise KeyboardInterrupt
    if status:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"{cell.name} failed with status {status}: {lines[-1] if lines else 'no output'} (see {log})"
    return None


def read(cell: Cell, threshold: float) -> dict[str, Any] | None:
    """Return the results of a cell, or None if it is not complete or has other settings."""
    if not (cell.run / "summary.json").is_file():
        return None
    stored = cell.stored()
    if stored is None or differing_keys(stored, cell.resolved()):
        return None
    rows = read_rows(cell.run / "metrics.jsonl")
    episodes, returns = curve(rows)
    if episodes.size == 0:
        return None
    return {
        "cell": cell,
        "curve": (episodes, returns),
        "reached": episodes_to_threshold(episodes, returns, threshold),
        "clone": evaluation_return(rows, "clone"),
        "final": evaluation_return(rows, "final"),
        "seconds": json.loads((cell.run / "summary.json").read_text())["wall_seconds"],
        "config": stored,
    }


def figures(task: str, threshold: float, runs: Mapping[str, Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return one row per method. `runs` maps each method to its complete runs, at least one."""
    made = []
    for method, done in runs.items():
        reached = [one["reached"] for one in done]
        finals = [one["final"] for one in done if one["final"] is not None]
        made.append(
            {
                "task": Path(task).stem,
                "method": method,
                "threshold": threshold,
                "seeds": len(done),
                "episodes_to_threshold": mean_over_seeds(reached),
                "ratio_to_ppo": ratio([one["reached"] for one in runs[BASELINE]], reached)
                if BASELINE in runs
                else None,
                "final_return": float(sum(finals) / len(finals)) if finals else None,
                "final_interval": list(bootstrap_interval(finals)) if finals else None,
                "seconds": sum(one["seconds"] for one in done) / len(done),
                "runs": [
                    {
                        "name": one["cell"].name,
                        "seed": one["cell"].seed,
                        "episodes_to_threshold": one["reached"].episodes,
                        "censored": one["reached"].censored,
                        "clone_return": one["clone"],
                        "final_return": one["final"],
                        "wall_seconds": one["seconds"],
                        "config": one["config"],
                    }
                    for one in done
                ],
            }
        )
    return made


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as the table shows it."""
    reached, compared, interval = row["episodes_to_threshold"], row["ratio_to_ppo"], row["final_interval"]
    sign = "> " if reached["censored"] else ""
    return {
        **{key: row[key] for key in ("task", "method", "seeds", "seconds")},
        "episodes": f"{sign}{reached['mean']:,.0f} ({reached['low']:,.0f} to {reached['high']:,.0f})",
        "ratio": "-"
        if compared is None
        else f"{compared['bound']} {compared['mean']:.2f} ({compared['low']:.2f} to {compared['high']:.2f})".strip(),
        "final": "-" if interval is None else f"{row['final_return']:.2f} ({interval[0]:.2f} to {interval[1]:.2f})",
    }


def options() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument(
        "--methods",
        nargs="+",
        help=f"values of `algorithm`, with {FROM_DATA} for {OFFLINE_CYCLES} cycles on the demonstrations first; "
        f"{' '.join(METHODS)}, and {' '.join(QUICK)} with --quick",
    )
    made.add_argument("--tasks", nargs="+", default=["key_door"], help="presets or YAML files")
    made.add_argument("--seeds", type=int, help="seeds 0 to N-1 of each method; 3, and 1 with --quick")
    made.add_argument("--cycles", type=int, help="cycles of each run; the preset's by default")
    made.add_argument("--threshold", action="append", default=[], metavar="TASK=VALUE", help="return to reach")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting for all cells")
    made.add_argument("--folder", type=Path, default=Path("runs/sample_efficiency"), help="folder of the runs")
    made.add_argument("--report-only", action="store_true", help="report existing runs, train nothing")
    return made.parse_args()


def thresholds(arguments: argparse.Namespace) -> dict[str, float]:
    """Return the threshold of each task. Exit with a sentence if a task has none."""
    given = dict(THRESHOLDS)
    for text in arguments.threshold:
        task, _, value = text.partition("=")
        try:
            given[task] = float(value)
        except ValueError:
            sys.exit(f"--threshold {text!r} is not of the form TASK=VALUE, such as key_door=-12")
    lacking = [task for task in arguments.tasks if Path(task).stem not in given]
    if lacking:
        sys.exit(f"no threshold is known for {', '.join(lacking)}; give one with --threshold TASK=VALUE")
    return given


def main() -> None:
    arguments = options()
    wanted = thresholds(arguments)
    # As it was given: an absolute path would put this machine's folders into the JSON.
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    overrides = (*arguments.set, *([f"cycles={arguments.cycles}"] if arguments.cycles is not None else []))
    if arguments.seeds is not None and arguments.seeds < 1:
        sys.exit(f"--seeds {arguments.seeds}: at least 1")
    seeds = range(arguments.seeds or (1 if arguments.quick else 3))
    cells = [
        Cell(task, method, seed, overrides, folder)
        for task in arguments.tasks
        for seed in seeds
        for method in arguments.methods or (QUICK if arguments.quick else METHODS)
    ]
    problems = []
    try:
        for cell in [] if arguments.report_only else cells:
            problem = play(cell)
            if problem:
                say(f"  {problem}")
                problems.append(problem)
    except KeyboardInterrupt:
        say("interrupted; the same command resumes, --report-only shows the existing results")
        sys.exit(130)
    rows = []
    for task in arguments.tasks:
        name = Path(task).stem
        runs: dict[str, list[dict[str, Any]]] = {}
        for cell in cells:
            done = read(cell, wanted[name]) if cell.task == task else None
            if done is not None:
                runs.setdefault(cell.method, []).append(done)
        if runs:
            rows += figures(task, wanted[name], runs)
            say(f"drawn to {draw(runs, wanted[name], folder / f'{name}.png', title=f'{name}: return over episodes')}")
    if rows:
        print_table("Sample efficiency (mean over seeds, 95% bootstrap)", COLUMNS, [shown(row) for row in rows])
        fewest = min(row["seeds"] for row in rows)
        if fewest < 5:
            say(f"{fewest} seed(s) a method: the intervals cover these seeds only and say little about others")
        say(f"written to {report('sample_efficiency', arguments, rows, problems=problems)}")
    else:
        say(f"no finished run with these settings in {folder}")
    sys.stdout.flush()
    sys.exit(1 if problems or not rows else 0)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
