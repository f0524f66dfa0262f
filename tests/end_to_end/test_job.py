"""A run as a job on an existing cluster, which trains by GRPO."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from loop_cases import ALGORITHMS, assert_trained, write_config

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]

BIN = Path(sys.executable).parent
# Ray enables authentication if it finds a token in the home directory, which this test must not depend on.
ENVIRONMENT = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]
    finally:
        for probe in sockets:
            probe.close()


@contextmanager
def _head() -> Iterator[str]:
    """Start a Ray head, yield the address for job submission, and end the head by its handle."""
    port, dashboard = _free_ports(2)
    # Ray puts its sockets here, and the length of their paths is limited.
    folder = tempfile.mkdtemp(prefix="rayjob")
    process = subprocess.Popen(
        [
            BIN / "ray",
            *("start", "--head", "--block", "--disable-usage-stats"),
            *(f"--port={port}", f"--dashboard-port={dashboard}", f"--temp-dir={folder}"),
            # The cluster that other tests share has the default port, and an agent without a port takes no jobs.
            "--dashboard-agent-listen-port=0",
            *("--num-cpus=4", "--object-store-memory=268435456"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT,
    )
    assert process.stdout is not None
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            if "Ray runtime started" in line:
                break
        else:
            raise AssertionError("the head did not start:\n" + "".join(lines))
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)


def _submit(address: str, command: list[str], *, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `ray job submit`, and retry while the job agent is still starting: on busy cores it may start later than the
    ten seconds that the head waits for it, and nothing was submitted then."""
    deadline = time.monotonic() + 180.0
    while True:
        done = subprocess.run(
            [BIN / "ray", "job", "submit", "--address", address, "--", *command],
            capture_output=True,
            text=True,
            timeout=600,
            cwd=cwd,
            env=ENVIRONMENT,
        )
        if "No available agent to submit job" not in done.stdout + done.stderr or time.monotonic() > deadline:
            return done


def test_submitted_job_trains_on_that_cluster(tmp_path: Path) -> None:
    config = write_config(tmp_path, algorithm="grpo", learner=ALGORITHMS, replay={"shards": 1})
    with _head() as address:
        done = _submit(address, [str(BIN / "archer"), "train", str(config)], cwd=tmp_path)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "cycle 2/2" in output
    assert "succeeded" in output
    assert_trained(tmp_path / "runs" / "small", "actor/kl_to_clone", cycles=2, version=3)
