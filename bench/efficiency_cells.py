"""The cells of `sample_efficiency.py`: one training run each, in a process and a folder of its own.

A cell whose run is complete is skipped, an interrupted one is resumed from its checkpoint, and a complete one is
lengthened if it is to have more cycles. A run with other settings is refused.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from archer.config.loading import dump_config, load_config
from archer.config.presets import find_config
from archer.driver.run_folder import latest_checkpoint, read_rows
from archer.errors import ArcherError
from bench.common import say
from bench.efficiency_figures import costs, curve, differing_keys, episodes_to, evaluation_return
from bench.efficiency_tasks import METHODS, TASKS, overrides

STOP_TIMEOUT_S = 120.0
INTERRUPTED = 130
"""Exit status of a run that was interrupted."""
OF_LENGTH = ("cycles", "evaluation.every", "checkpoint.every")
"""Settings in which a run may differ from its cell, so that the episodes of a task can be changed later."""


@dataclass(frozen=True)
class Cell:
    """One run: a task, a method and a seed.

    Attributes:
        extra: overrides after all others.
        folder: of the runs, as it was given.
        real: whether it runs on Ray, vLLM and the replay service.
        episodes: of the run; None takes the task's.
    """

    task: str
    method: str
    seed: int
    folder: Path
    extra: tuple[str, ...] = ()
    real: bool = False
    episodes: int | None = None

    @property
    def name(self) -> str:
        return f"{self.task}-{self.method}-{self.seed}"

    @property
    def run(self) -> Path:
        return self.folder / self.name

    @property
    def preset(self) -> str:
        return TASKS[self.task].preset

    @property
    def settings(self) -> list[str]:
        """All overrides of the preset."""
        own = [f"seed={self.seed}", f"name={self.name}", f"runs_dir={self.folder}"]
        task, method = TASKS[self.task], METHODS[self.method]
        return [*overrides(task, method, real=self.real, episodes=self.episodes), *self.extra, *own]

    @property
    def shown(self) -> list[str]:
        """The overrides without the name and the folder of the run, as the JSON has them."""
        return [text for text in self.settings if not text.startswith(("name=", "runs_dir="))]

    def resolved(self) -> dict[str, Any]:
        return yaml.safe_load(dump_config(load_config(self.preset, self.settings)))

    def stored(self) -> dict[str, Any] | None:
        """Return the settings of the run in the run folder, or None if there is no run."""
        path = self.run / "config.yaml"
        return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None


def command_of(cell: Cell) -> list[str] | None:
    """Return the command that starts, resumes or lengthens the run of a cell, or None if it is complete.

    Raises:
        ValueError: if the folder holds a run with other settings.
    """
    archer = [sys.executable, "-m", "archer.cli", "train"]
    stored, wanted = cell.stored(), cell.resolved()
    if stored is None:
        return [*archer, str(find_config(cell.preset)), *cell.settings]
    keys = [key for key in differing_keys(stored, wanted) if key not in OF_LENGTH]
    if keys:
        raise ValueError(
            f"{cell.run} holds a run with other settings ({', '.join(keys)}); delete it, or choose another --folder"
        )
    if (cell.run / "summary.json").is_file() and stored["cycles"] >= wanted["cycles"]:
        return None
    if latest_checkpoint(cell.run) is None:
        # Without a checkpoint it starts from the beginning.
        return [*archer, str(find_config(cell.preset)), *cell.settings, "--overwrite"]
    cycles = max(stored["cycles"], wanted["cycles"])
    return [*archer, "--resume", str(cell.run), f"cycles={cycles}"]


def play(cell: Cell) -> str | None:
    """Run a cell to its end. Return one sentence if it failed, else None.

    Raises:
        KeyboardInterrupt: if the run was interrupted.
    """
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
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    if status:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"{cell.name} failed with status {status}: {lines[-1] if lines else 'no output'} (see {log})"
    return None


def play_all(cells: Sequence[Cell], jobs: int) -> list[str]:
    """Run the cells in order, `jobs` at once, and return a sentence for each that failed.

    Raises:
        KeyboardInterrupt: if a run was interrupted; the others that ran at that time have ended too.
    """
    problems: list[str] = []
    stopped = threading.Event()

    def one(cell: Cell) -> None:
        if stopped.is_set():
            return
        try:
            problem = play(cell)
        except KeyboardInterrupt:
            stopped.set()
            return
        if problem:
            say(f"  {problem}")
            problems.append(problem)

    with ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(one, cell) for cell in cells]
        try:
            for future in running:
                future.result()
        except KeyboardInterrupt:
            stopped.set()
    if stopped.is_set():
        raise KeyboardInterrupt
    return problems


def read(cell: Cell) -> dict[str, Any] | None:
    """Return the results of a cell as the JSON has them, or None if it is not complete or has other settings."""
    summary = cell.run / "summary.json"
    stored = cell.stored()
    if stored is None or not summary.is_file():
        return None
    if set(differing_keys(stored, cell.resolved())) - set(OF_LENGTH):
        return None
    return measures(cell, read_rows(cell.run / "metrics.jsonl"), json.loads(summary.read_text(encoding="utf-8")))


def still_valid(cell: Cell, row: Mapping[str, Any]) -> bool:
    """Return whether a row of an earlier JSON has the cell's present preset and settings, its length aside."""
    return bool(
        row.get("preset") == digest(cell.preset) and of_any_length(row["settings"]) == of_any_length(cell.shown)
    )


def of_any_length(settings: Sequence[str]) -> list[str]:
    return [text for text in settings if not text.startswith(tuple(f"{key}=" for key in OF_LENGTH))]


def digest(preset: str) -> str:
    """Return the start of the SHA-256 of a preset's settings; its comments do not count."""
    settings = yaml.safe_load(find_config(preset).read_text(encoding="utf-8"))
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def measures(cell: Cell, rows: Sequence[dict[str, Any]], summary: dict[str, Any]) -> dict[str, Any]:
    """Return the measures of a run from the rows of metrics.jsonl and its summary."""
    learnt, returns = curve(rows)
    lenient, near_optimal = (
        episodes_to(rows, threshold) for threshold in (TASKS[cell.task].lenient, TASKS[cell.task].near_optimal)
    )
    return {
        "task": cell.task,
        "method": cell.method,
        "seed": cell.seed,
        "episodes": summary["episodes"],
        "demonstrations": load_config(cell.preset, cell.settings, check=False).demonstrations.episodes,
        "lenient": vars(lenient),
        "near_optimal": vars(near_optimal),
        "clone_return": evaluation_return(rows, "clone"),
        "final_return": evaluation_return(rows, "final"),
        "best_return": summary["best_return"],
        "costs": costs(rows),
        "costs_to_near_optimal": costs(rows, near_optimal),
        "wall_seconds": summary["wall_seconds"],
        "learnt": learnt.tolist(),
        "returns": [round(value, 3) for value in returns.tolist()],
        "preset": digest(cell.preset),
        "settings": cell.shown,
    }
