"""Run folders as the viewer reads them: whatever is there, whether the run is active, ended, or half written."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from archer.errors import ConfigError

Row = dict[str, Any]

_DEPTH = 3
"""Levels of folders below the given one in which runs are looked for."""
_RECENT_S = 90.0
_MARKS = ("config.yaml", "metrics.jsonl")
_READ = (*_MARKS, "summary.json")
_INSIDE = {"checkpoints", "best", "replay", "model", "clone", "history"}


@dataclass(frozen=True)
class Run:
    """One run folder. `key` names it in addresses of pages: its path below the folder that is viewed."""

    key: str
    path: Path
    problems: list[str] = field(default_factory=list)
    """Sentences about files that could not be read."""

    @cached_property
    def rows(self) -> list[Row]:
        """The rows of metrics.jsonl; lines that are not JSON objects are named in `problems` and left out."""
        path = self.path / "metrics.jsonl"
        rows: list[Row] = []
        lines = self._text(path).split("\n")
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                row = None
            if isinstance(row, dict) and isinstance(row.get("kind"), str):
                rows.append(row)
            elif number < len(lines):  # the last line may be under way
                self.problems.append(f"{path.name}, line {number} is no row; it is left out")
        return rows

    @cached_property
    def summary(self) -> Row:
        """The content of summary.json, {} before the end of the run."""
        text = self._text(self.path / "summary.json")
        if not text:
            return {}
        try:
            found = json.loads(text)
        except json.JSONDecodeError:
            found = None
        if not isinstance(found, dict):
            self.problems.append("summary.json is not complete")
            return {}
        return found

    @cached_property
    def config_text(self) -> str:
        """The text of config.yaml."""
        return self._text(self.path / "config.yaml")

    @cached_property
    def config(self) -> Row:
        """The content of config.yaml, {} if it cannot be read."""
        try:
            found = yaml.safe_load(self.config_text)
        except yaml.YAMLError:
            found = None
        if not isinstance(found, dict):
            self.problems.append("config.yaml is missing or not complete")
            return {}
        return found

    @property
    def signature(self) -> tuple[tuple[int, int], ...]:
        """Size and time of the files that this object reads; another value says that they have changed."""
        found = []
        for name in _READ:
            try:
                stat = (self.path / name).stat()
                found.append((stat.st_size, stat.st_mtime_ns))
            except OSError:
                found.append((-1, 0))
        return tuple(found)

    @property
    def state(self) -> str:
        """Whether the run is "running", has "finished", or was "stopped" before its summary."""
        if is_locked(self.path / ".lock") or self._written_lately():
            return "running"
        return "finished" if self.summary else "stopped"

    def _written_lately(self) -> bool:
        """Whether a run on another machine, whose lock is out of sight, seems to be active."""
        if self.summary:
            return False
        try:
            return time.time() - (self.path / "metrics.jsonl").stat().st_mtime < _RECENT_S
        except OSError:
            return False

    @property
    def cycles(self) -> list[Row]:
        """The rows of finished cycles."""
        return [row for row in self.rows if row["kind"] == "cycle" and isinstance(row.get("metrics"), dict)]

    @property
    def evaluations(self) -> list[Row]:
        """The rows of evaluations; of several with one name the last."""
        evaluations = (row for row in self.rows if row["kind"] == "evaluation" and is_number(row.get("return_mean")))
        found = {row.get("name"): row for row in evaluations}
        return list(found.values())

    def overview(self) -> Row:
        """Return what a table of runs shows of this one."""
        cycles, evaluations = self.cycles, self.evaluations
        last = cycles[-1]["metrics"] if cycles else {}
        newest = evaluations[-1] if evaluations else {}
        env = self.config.get("env")
        return {
            "key": self.key,
            "name": self.config.get("name") or self.path.name,
            "env": env.get("id") if isinstance(env, dict) else None,
            "algorithm": self.config.get("algorithm"),
            "state": self.state,
            "cycle": len(cycles),
            "cycles": self.config.get("cycles"),
            "episodes": last.get("episodes"),
            "version": last.get("policy_version"),
            "return": last.get("return"),
            "success": last.get("success_rate"),
            "evaluated": newest.get("return_mean"),
            "evaluated_low": newest.get("return_low"),
            "evaluated_high": newest.get("return_high"),
            "evaluated_success": newest.get("success_rate"),
            "best": max((row["return_mean"] for row in evaluations), default=None),
            "wall_seconds": last.get("wall_seconds"),
            "updated": max((row["time"] for row in self.rows if is_number(row.get("time"))), default=None),
            "problems": list(dict.fromkeys(self.problems)),
        }

    def _text(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        except OSError as error:
            self.problems.append(f"{path.name} cannot be read: {error.strerror}")
            return ""


def is_number(value: Any) -> bool:
    """Return whether a value of a row is a finite number; rows have null in place of the others."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def interval(row: Row) -> str:
    """Return the interval of an evaluation as text, "" if it has none."""
    low, high = row.get("return_low"), row.get("return_high")
    return f"{low:.2f} to {high:.2f}" if is_number(low) and is_number(high) else ""


def find_runs(root: Path) -> list[Run]:
    """Return the runs in `root`, or `root` itself if it is one, sorted by key; an empty list if there is none."""
    if is_run(root):
        return [Run(root.resolve().name, root)]
    found: list[Run] = []
    for folder, names, _ in os.walk(root):
        path = Path(folder)
        depth = len(path.relative_to(root).parts)
        if depth and is_run(path):
            found.append(Run(path.relative_to(root).as_posix(), path))
            names.clear()
        elif depth >= _DEPTH:
            names.clear()
        names[:] = [name for name in names if not name.startswith(".") and name not in _INSIDE]
    return sorted(found, key=lambda run: run.key)


def open_run(path: Path) -> Run:
    """Return the run in `path`. Raises ConfigError if there is none."""
    if not path.is_dir():
        raise ConfigError(f"{path} does not exist or is no folder; give a run folder such as runs/demo")
    if not is_run(path):
        inside = [run.key for run in find_runs(path)][:3]
        raise ConfigError(
            f"{path} is no run folder (it has neither config.yaml nor metrics.jsonl)"
            + (f"; it contains runs: {', '.join(str(path / key) for key in inside)}" if inside else "")
        )
    return Run(path.resolve().name, path)


def is_run(path: Path) -> bool:
    """Return whether the folder is that of a run, perhaps one that has just begun."""
    return any((path / mark).is_file() for mark in _MARKS)


def is_locked(lock: Path) -> bool:
    """Return whether a process of this machine holds the lock of a run, without touching the lock."""
    try:
        inode = lock.stat().st_ino
        held = Path("/proc/locks").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return any(f":{inode} " in line for line in held.splitlines() if "FLOCK" in line)
