"""The contenders of `bench/replay.py` with Python environments of their own: installs them and runs their programs."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.common import BENCH, say
from bench.replay_workload import Work

REQUIREMENTS = BENCH / "requirements-replay.txt"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "archer-bench"
INSTALL_TIMEOUT_S = 1800.0
ALLOWED_S = 300.0
"""Seconds allowed in addition to the measured time: imports, start of a cluster, filling."""


@dataclass(frozen=True)
class Foreign:
    """A package with the program that measures it and the environment that holds it."""

    package: str
    title: str
    beside_ours: bool
    """Whether its environment uses the packages of ours (torch, ray) and adds only its own."""

    @property
    def program(self) -> Path:
        """Path of the program, which prints its rows as JSON in its last line."""
        return BENCH / f"replay_{self.package}.py"

    @property
    def home(self) -> Path:
        """Folder of the environment that `--install` creates."""
        return CACHE / self.package

    @property
    def cached(self) -> Path:
        """Python of that environment."""
        return self.home / "bin" / "python"


FOREIGN = (Foreign("torchrl", "TorchRL", beside_ours=True), Foreign("reverb", "Reverb", beside_ours=False))


def add_arguments(made: argparse.ArgumentParser) -> None:
    """Add `--install`, and `--PACKAGE-python` for each package."""
    made.add_argument("--install", action="store_true", help=f"create missing environments from {REQUIREMENTS.name}")
    for foreign in FOREIGN:
        name = f"--{foreign.package}-python"
        made.add_argument(name, type=Path, metavar="PATH", help=f"a Python that has {foreign.title}")


def rows_of(foreign: Foreign, work: Work, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the measured rows, or one row whose `note` gives the reason why nothing was measured."""
    python = getattr(arguments, f"{foreign.package}_python") or _python(foreign)
    if python is None and arguments.install:
        why = install(foreign)
        if why:
            return [{"contender": foreign.title, "note": f"not installed: {why}"}]
        python = foreign.cached
    if python is None:
        option = f"--install or --{foreign.package}-python"
        return [{"contender": foreign.title, "note": f"not installed: no environment with it; give {option}"}]
    return run(foreign, Path(python), work)


def _python(foreign: Foreign) -> Path | None:
    if foreign.cached.exists():
        return foreign.cached
    return Path(sys.executable) if importlib.util.find_spec(foreign.package) else None


def run(foreign: Foreign, python: Path, work: Work) -> list[dict[str, Any]]:
    """Run the program with that Python; return what `rows_of` returns."""
    command = [str(python), str(foreign.program), work.to_json()]
    # The settings that `bench.common` makes for our own process.
    settings = {
        "OMP_NUM_THREADS": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
    }
    timeout = ALLOWED_S + 20 * work.seconds * work.repeats
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=os.environ | settings)
    except (FileNotFoundError, PermissionError) as error:
        return [{"contender": foreign.title, "note": f"not run: {error}"}]
    except subprocess.TimeoutExpired:
        return [{"contender": foreign.title, "note": f"gave no result within {timeout:.0f} s"}]
    if done.returncode != 0:
        return [{"contender": foreign.title, "note": f"failed: {_last_line(done.stderr)}"}]
    return list(json.loads(_last_line(done.stdout)))


def install(foreign: Foreign) -> str | None:
    """Create the environment in the user's cache; return the error, or None."""
    say(f"installing {foreign.title} into an environment of its own")
    building = foreign.home.with_suffix(".part")
    venv.create(building, with_pip=True, clear=True)
    pip = [str(building / "bin" / "python"), "-m", "pip", "install", "-q", *_pins(foreign)]
    try:
        done = subprocess.run(
            [*pip, *(["--no-deps"] if foreign.beside_ours else [])],
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return f"pip took more than {INSTALL_TIMEOUT_S:.0f} s"
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        return errors[0] if errors else _last_line(done.stderr)
    if foreign.beside_ours:
        (site,) = building.glob("lib/python*/site-packages")
        (site / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    # A Python finds its packages after its folder is renamed, so the final name never holds an incomplete environment.
    building.rename(foreign.home)
    return None


def _pins(foreign: Foreign) -> list[str]:
    """Return the lines of the requirements file that follow `# [package]`."""
    part = REQUIREMENTS.read_text().partition(f"# [{foreign.package}]")[2].partition("# [")[0]
    return [line.strip() for line in part.splitlines()[1:] if line.strip() and not line.startswith("#")]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no output"])[-1]
