"""A run that is disturbed: its driver's process, what can be done to it, and what is watched meanwhile."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from archer.driver.run_folder import latest_checkpoint
from buffer.errors import ReplayError
from buffer.log.write_ahead import read_episodes
from learner.engine.checkpoint_folders import cycle_of

TITLES = {
    "rank": "ray::LearnerRank",
    "worker": "ray::RolloutWorker",
    "engine": "VLLM::EngineCore",
    "shard": "ray::ShardActor",
    "limiter": "ray::LimiterActor",
    "pool": "ray::RolloutPool",
    "board": "ray::Board",
    "controller": "ray::TrainController",
}
"""The kinds of victims beside the driver, by the title of their process."""
KINDS = ["rank"] * 4 + ["worker", "engine", "shard"] * 2 + ["limiter", "pool", "board", "controller", "driver"]
"""Victims, the more often the more of them a large run has."""
STOPPED_S = 15.0
GRACE_S = 30.0
LEAVES_LATE = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Two agents of Ray, which exit a minute after the driver."""


@dataclass
class Sample:
    """What one process held at a time, in seconds since the program began, and the cycles that the run had finished."""

    time: float
    cycle: int
    kind: str
    pid: int
    rss_mb: float
    files: int


@dataclass
class Driver:
    """One `archer` process after the other on the same run folder."""

    config: Path
    folder: Path
    log: Path
    process: subprocess.Popen[bytes] | None = None
    ends: list[dict[str, Any]] = field(default_factory=list)
    """How each process ended: status, last line, and seconds that it ran."""
    known: dict[int, psutil.Process] = field(default_factory=dict)
    """Every process that was ever seen below a driver."""
    seen: set[str] = field(default_factory=set)
    """Ids of episodes that replay had acknowledged, since the checkpoint that the present driver resumed from."""
    samples: list[Sample] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def start(self, cycles: int | None = None) -> None:
        """Start the run, or resume it, up to `cycles` if given."""
        newest = latest_checkpoint(self.folder)
        arguments = ["--resume", str(self.folder)] if (self.folder / "config.yaml").exists() else [str(self.config)]
        arguments += [] if cycles is None else [f"cycles={cycles}"]
        self.seen = set() if newest is None else set(episode_ids(newest / "replay"))
        with open(self.log, "ab") as log:
            self._offset = log.tell()
            self.process = subprocess.Popen(
                [str(Path(sys.executable).with_name("archer")), "train", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.config.parent,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        self._started = time.monotonic()

    def ended(self) -> int | None:
        """Return the exit status if the process has ended, and note how it did."""
        assert self.process is not None
        status = self.process.poll()
        if status is not None:
            said = self.said()
            seconds = round(time.monotonic() - self._started, 1)
            last = next((line for line in reversed(said) if line.startswith("archer:")), said[-1] if said else "")
            crash = any("Traceback (most recent call last)" in line for line in said)
            last = last.replace(str(self.folder), "RUN")[:400]
            self.ends.append({"status": status, "seconds": seconds, "said": last, "traceback": crash})
        return status

    def said(self) -> list[str]:
        """Return the lines that the present process has written."""
        return self.log.read_bytes()[self._offset :].decode(errors="replace").strip().splitlines()

    def terminate(self) -> int:
        """Send SIGTERM, and return the status with which the process ends; it has 30 s, as schedulers give."""
        assert self.process is not None
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE_S)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)
        status = self.ended()
        assert status is not None
        return status

    def cycle(self) -> int:
        """Return the number of finished cycles that a resume has."""
        newest = latest_checkpoint(self.folder)
        return 0 if newest is None else cycle_of(newest)

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Return the living processes of each kind, and remember all of them."""
        found: dict[str, list[psutil.Process]] = {kind: [] for kind in ("driver", *TITLES)}
        with suppress(psutil.NoSuchProcess):
            assert self.process is not None
            driver = psutil.Process(self.process.pid)
            found["driver"].append(driver)
            for process in driver.children(recursive=True):
                self.known[process.pid] = process
                with suppress(psutil.NoSuchProcess):
                    title = process.name() if process.name().startswith("ray::") else " ".join(process.cmdline())
                    for kind, begins in TITLES.items():
                        if title.startswith(begins):
                            found[kind].append(process)
        return found

    def watch(self) -> None:
        """Note what every process holds, and which episodes replay has."""
        cycle = self.cycle()
        for kind, processes in self.processes().items():
            for process in processes:
                with suppress(psutil.Error):
                    rss, files = process.memory_info().rss / 2**20, process.num_fds()
                    self.samples.append(Sample(time.monotonic() - self.began, cycle, kind, process.pid, rss, files))
        # Before the shards run, the folder still holds what the resume drops.
        if self.processes()["shard"]:
            with suppress(ReplayError, OSError):  # a shard that restarts is writing
                self.seen |= set(episode_ids(self.folder / "replay"))

    def left(self, timeout_s: float) -> list[str]:
        """Return the processes that still run `timeout_s` after the driver, and files that nobody should find."""
        others = [process for process in self.known.values() if process.is_running()]
        others = [process for process in others if not _named(process).startswith(LEAVES_LATE)]
        _, alive = psutil.wait_procs(others, timeout=timeout_s)
        names = [f"process {_named(process)}" for process in alive if _runs(process)]
        files = [path for path in self.folder.rglob("*") if path.suffix in (".partial", ".tmp") or path.name == "stop"]
        return names + [f"file {path.relative_to(self.folder)}" for path in files]

    def end(self) -> None:
        """Kill the driver and every process that was seen below it."""
        self.processes()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)
        for process in self.known.values():
            with suppress(psutil.NoSuchProcess):
                if process.is_running():
                    process.kill()


def _named(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def episode_ids(replay: Path) -> list[str]:
    """Return the ids of all episodes in the logs of a replay."""
    return [str(name) for batch in read_episodes(replay) for name in batch.column("episode_id").to_pylist()]


class Faults:
    """Disturbs a driver, with a victim and a way that are drawn at random.

    disk: whether the run folder has a disk of its own, which can be filled.
    cut: whether connections can be cut (`can_cut`).
    """

    def __init__(self, seed: int, *, disk: bool, cut: bool) -> None:
        self._random = random.Random(seed)
        self._ways = ["kill"] * 5 + ["stop"] * 3 + ["disk"] * disk + ["cut"] * cut
        self.made: list[dict[str, Any]] = []

    def strike(self, driver: Driver) -> None:
        """Do the next fault. A stop and a full disk last for 15 s, in which the run goes on.

        A cut ends every connection of the victim at once, for both sides, as a switch that loses its state does.
        """
        way, kind = self._random.choice(self._ways), self._random.choice(KINDS)
        place = self._random.random()
        row: dict[str, Any] = {"at_s": round(time.monotonic() - driver.began, 1), "way": way}
        if way == "disk":
            _fill(driver.folder.parent, STOPPED_S)
            self.made.append({**row, "victim": "disk"})
            return
        victims = driver.processes()[kind]
        if not victims:
            self.made.append({**row, "victim": kind, "way": "absent"})  # it is just restarting
            return
        victim = victims[int(place * len(victims))]
        with suppress(psutil.NoSuchProcess):
            if way == "kill":
                victim.kill()
            elif way == "cut":
                row["connections"] = cut_off(victim)
            else:
                victim.send_signal(signal.SIGSTOP)
                time.sleep(STOPPED_S)
                victim.send_signal(signal.SIGCONT)
        self.made.append({**row, "victim": kind})


def cut_off(process: psutil.Process) -> int:
    """End the TCP connections of a process for both sides; return their number."""
    open_now = [c for c in process.net_connections("tcp") if c.status == psutil.CONN_ESTABLISHED]
    pairs = {(c.laddr.port, c.raddr.port) for c in open_now}
    if pairs:
        chosen = " or ".join(f"( sport = :{own} and dport = :{other} )" for own, other in sorted(pairs))
        subprocess.run(["ss", "--kill", "--tcp", "state", "established", f"( {chosen} )"], capture_output=True)
    return len(pairs)


def can_cut() -> bool:
    """Return whether connections of this machine can be cut: it needs the rights of root, and a kernel that can."""
    if shutil.which("ss") is None:
        return False
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        port = client.getsockname()[1]
        subprocess.run(["ss", "--kill", "--tcp", "state", "established", f"sport = :{port}"], capture_output=True)
        client.setblocking(False)
        try:
            client.recv(1)
        except BlockingIOError:
            return False
        except OSError:
            return True
    return False


def _fill(folder: Path, seconds: float) -> None:
    """Leave no room on the disk of `folder` for some seconds."""
    ballast = folder / "ballast"
    try:
        with open(ballast, "wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(1 << 20))
        time.sleep(seconds)
    finally:
        ballast.unlink(missing_ok=True)


@contextmanager
def own_disk(folder: Path, size_mb: int) -> Iterator[bool]:
    """Mount a disk of its own at `folder`, and yield whether that is possible: it needs the rights of root."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "archer-chaos", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)
