"""The contenders of `bench/replay.py` that live in environments of their own: making these, and running in them."""

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
"""Beside the time that is measured: imports, a cluster, filling."""


@dataclass(frozen=True)
class Foreign:
    """A package, the program that measures it, and how its environment is made."""

    package: str
    title: str
    beside_ours: bool
    """Whether it sees our packages (torch, ray) rather than its own."""

    @property
    def program(self) -> Path:
        """Prints its rows as JSON in its last line."""
        return BENCH / f"replay_{self.package}.py"

    @property
    def home(self) -> Path:
        """Of the environment that `--install` makes."""
        return CACHE / self.package

    @property
    def cached(self) -> Path:
        """Its Python."""
        return self.home / "bin" / "python"


FOREIGN = (Foreign("torchrl", "TorchRL", beside_ours=True), Foreign("reverb", "Reverb", beside_ours=False))


def add_arguments(made: argparse.ArgumentParser) -> None:
    """`--install`, and a `--PACKAGE-python` for each."""
    made.add_argument("--install", action="store_true", help=f"make missing environments from {REQUIREMENTS.name}")
    for foreign in FOREIGN:
        name = f"--{foreign.package}-python"
        made.add_argument(name, type=Path, metavar="PATH", help=f"a Python that has {foreign.title}")


def rows_of(foreign: Foreign, work: Work, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Its rows, or one that says in `note` why there are none."""
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
    """What its program measures with that Python."""
    command = [str(python), str(foreign.program), work.to_json()]
    # What ours runs with, bench.common sets for itself.
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
        return [{"contender": foreign.title, "note": f"gave nothing within {timeout:.0f} s"}]
    if done.returncode != 0:
        return [{"contender": foreign.title, "note": f"failed: {_last_line(done.stderr)}"}]
    return list(json.loads(_last_line(done.stdout)))


def install(foreign: Foreign) -> str | None:
    """Make its environment in the user's cache; what went wrong, if anything did."""
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
    # Its Python finds its packages wherever it lies; a half-made environment never lies under the name.
    building.rename(foreign.home)
    return None


def _pins(foreign: Foreign) -> list[str]:
    """The lines of the requirements behind `# [package]`."""
    part = REQUIREMENTS.read_text().partition(f"# [{foreign.package}]")[2].partition("# [")[0]
    return [line.strip() for line in part.splitlines()[1:] if line.strip() and not line.startswith("#")]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]
