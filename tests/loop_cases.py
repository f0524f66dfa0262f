"""Shared parts of the end-to-end tests: an `archer` process, a small configuration, and access to the run folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from archer.driver.run_folder import latest_checkpoint

SMALL: dict[str, Any] = {
    "name": "small",
    "cycles": 2,
    "episodes_per_cycle": 8,
    "model": {"build": {"vocab_size": 400, "hidden_size": 32, "layers": 2, "heads": 1, "intermediate_size": 64}},
    "env": {"id": "twenty_questions_subset"},
    "demonstrations": {"episodes": 32, "skill": 0.3, "keep_in_replay": True},
    "rollout": {
        "sampling": {"max_tokens": 10},
        "episodes_at_once": 16,
        "cpus_per_worker": 0.5,
        # The engine writes zeros to all of its cache when it starts: a gigabyte by default.
        "engine": {"kv_cache_gib": 0.1},
    },
    "replay": {"shards": 2},
    "learner": {
        "cpus_per_rank": 0.5,
        "clone": {"steps": 4, "batch": 8, "lr": 1e-3},
        "critic": {
            "unit": "episode",
            "batch": 8,
            "steps_per_cycle": 3,
            "warmup_cycles": 0,
            "n_step": 2,
            "lr": 1e-3,
            "build": {"hidden_size": 32, "layers": 1, "heads": 1, "intermediate_size": 64},
        },
        "actor": {"unit": "episode", "batch": 8, "steps_per_cycle": 2, "lr": 1e-3},
    },
    "evaluation": {"episodes": 8},
    "checkpoint": {"every": 1},
}


ALGORITHMS: dict[str, Any] = {
    "cpus_per_rank": 0.5,
    "offline": {"unit": "episode", "batch": 4, "steps_per_cycle": 2},
    "filtered_bc": {"steps_per_cycle": 2, "batch": 4, "best": 0.5},
    "ppo": {"batch": 4, "epochs": 2, "lr": 1e-3, "value_lr": 1e-3},
    "reinforce": {"batch": 4, "lr": 1e-3},
    "grpo": {"batch": 4, "group": 4, "lr": 1e-3, "kl_to_clone": 0.01},
    "chai": {"candidates": 2},
}
"""Small settings of every algorithm, for the field `learner`."""


@dataclass
class Run:
    """One `archer` process and its folder."""

    process: subprocess.Popen[str]
    folder: Path
    lines: list[str]

    def until(self, wanted: Callable[[str], bool], timeout_s: float = 840.0) -> str:
        """Read the output up to a line that `wanted` accepts. Fail with the whole output if the process ends."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + timeout_s
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if wanted(line):
                return line.rstrip()
            assert time.monotonic() < deadline, "no such line in time:\n" + "\n".join(self.lines)
        raise AssertionError(f"ended with {self.process.wait()} before that line:\n" + "\n".join(self.lines))

    def finish(self, timeout_s: float = 840.0) -> int:
        """Read the rest of the output and return the exit status."""
        assert self.process.stdout is not None
        self.lines += [line.rstrip() for line in self.process.stdout]
        return self.process.wait(timeout_s)

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def rows(self, kind: str) -> list[dict[str, Any]]:
        return rows(self.folder, kind)

    def family(self) -> list[psutil.Process]:
        """Return every descendant process, except two agents of Ray, which exit a minute after the driver."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if child.name() not in ("ray::DashboardAgent", "ray::RuntimeEnvAgent")]

    def descendants(self, title: str) -> list[psutil.Process]:
        """Return the descendant processes, Ray's included, whose title begins with `title`."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if process.name().startswith(title) or " ".join(process.cmdline()).startswith(title):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found


def rows(run_folder: Path, kind: str) -> list[dict[str, Any]]:
    """Return the rows of one kind in metrics.jsonl."""
    text = (run_folder / "metrics.jsonl").read_text()
    return [row for row in map(json.loads, text.splitlines()) if row["kind"] == kind]


def assert_trained(run_folder: Path, metric: str, *, cycles: int, version: int, offline: int = 0) -> None:
    """Check that every cycle reported `metric`, and that all but the first `offline` played episodes."""
    summary = json.loads((run_folder / "summary.json").read_text())
    assert summary["cycles"] == cycles
    assert summary["policy_version"] == version
    assert summary["proof_max_gap"] < 1e-3
    assert len(rows(run_folder, "cycle")) == cycles
    assert_cycles(run_folder, metric, version=version, offline=offline)


def assert_cycles(run_folder: Path, metric: str, *, version: int, offline: int = 0, cycles: int | None = None) -> None:
    """Check the first `cycles` cycles (all by default) of a run that may have ended early, as `assert_trained` does.

    `version` is the policy's version after the last of them.
    """
    found = rows(run_folder, "cycle")[:cycles]
    assert cycles is None or len(found) == cycles
    assert found[-1]["metrics"]["policy_version"] == version
    assert all(metric in row["metrics"] for row in found)
    assert ["return" in row["metrics"] for row in found] == [False] * offline + [True] * (len(found) - offline)
    checkpoint = latest_checkpoint(run_folder)
    assert checkpoint is not None
    assert json.loads((checkpoint / "state.json").read_text())["proof_max_gap"] < 1e-3


def write_config(folder: Path, **changes: Any) -> Path:
    """Write the small configuration, with `section={...}` merged in, as a YAML file in `folder`; return its path."""
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(_merge(SMALL, {"runs_dir": str(folder / "runs"), **changes})))
    return path


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


@contextmanager
def archer(folder: Path, *arguments: str, cwd: Path | None = None, **environment: str) -> Iterator[Run]:
    """Start `archer ...`; at the end, kill the process and its descendants."""
    command = [str(Path(sys.executable).with_name("archer")), *arguments]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd or folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        start_new_session=True,
        # A shell's background job ignores SIGINT, and so do the processes that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    known: list[psutil.Process] = []
    try:
        yield Run(process, folder / "runs" / "small", [])
    finally:
        if process.poll() is None:
            known = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGKILL)
            process.wait(30)
        for child in known:
            if child.is_running():
                child.kill()
        assert process.stdout is not None
        process.stdout.close()


def record_episodes(folder: Path) -> Path:
    """Return a Parquet file of scripted episodes to import."""
    out = folder / "data"
    wanted = ("twenty_questions_subset", "--episodes", "32", "--skill", "0.3", "--out", str(out))
    with archer(folder, "record", *wanted) as run:
        assert run.finish() == 0, run.output
    return out / "episodes.parquet"
