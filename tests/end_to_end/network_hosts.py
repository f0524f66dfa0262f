"""Hosts of one machine: each has a network, a name, processes and shared memory of its own, by Linux namespaces.

Files are common to all of them, as on storage that every host mounts, except `/dev/shm` and Ray's `/tmp/ray`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_LIMIT_S = 60.0


class CannotMakeHosts(Exception):
    """This machine or this user cannot make namespaces; the message says what failed."""


class Hosts:
    """Hosts by name, at 10.77.0.1, 10.77.0.2, ... on one switch."""

    def __init__(self, folder: Path, names: tuple[str, ...], environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._prefix = f"archer{os.getpid()}"
        self._switch = f"{self._prefix}sw"
        self._roots: dict[str, int] = {}
        self._started: list[subprocess.Popen[str]] = []
        self.addresses = {name: f"10.77.0.{index}" for index, name in enumerate(names, 1)}

    def make(self) -> None:
        """Make the hosts. Raises CannotMakeHosts."""
        for tool in ("ip", "unshare", "nsenter", "mount"):
            if shutil.which(tool) is None:
                raise CannotMakeHosts(f"the program {tool} is missing")
        self._ip("netns", "add", self._switch)
        self._ip("-n", self._switch, "link", "add", "br0", "type", "bridge")
        self._ip("-n", self._switch, "link", "set", "br0", "up")
        for index, name in enumerate(self.addresses):
            self._make_host(name, index)

    def _make_host(self, name: str, index: int) -> None:
        space, port = self._space(name), self._port(name)
        self._ip("netns", "add", space)
        peer = ("peer", "name", "eth0", "netns", space)
        self._ip("-n", self._switch, "link", "add", port, "type", "veth", *peer)
        self._ip("-n", self._switch, "link", "set", port, "master", "br0", "up")
        self._ip("-n", space, "addr", "add", f"{self.addresses[name]}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            self._ip("-n", space, "link", "set", device, "up")
        # Processes find their own address by the route to the world outside, which nothing here answers.
        self._ip("-n", space, "route", "add", "default", "via", "10.77.0.254")
        own = self._folder / "disks" / name
        own.mkdir(parents=True)
        Path("/tmp/ray").mkdir(exist_ok=True)  # Ray's sockets: the length of their paths is limited
        script = (
            f"hostname {name} && mount -t tmpfs tmpfs /dev/shm && mount --bind {own} /tmp/ray && echo made && "
            "exec sleep infinity"
        )
        isolated = ("--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=KILL", "--mount-proc")
        command = ["ip", "netns", "exec", space, "unshare", *isolated, "sh", "-c", script]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._started.append(process)
        assert process.stdout is not None
        if (said := process.stdout.readline().strip()) != "made":
            raise CannotMakeHosts(said or "unshare ended")
        self._roots[name] = psutil.Process(process.pid).children()[0].pid

    def start(self, name: str, *command: str | Path) -> subprocess.Popen[str]:
        """Start a command on a host; it ends with the host."""
        inside = ("--mount", "--uts", "--ipc", "--net", "--pid", "--target", str(self._roots[name]))
        process = subprocess.Popen(
            ["nsenter", *inside, f"--wdns={self._folder}", "--", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **self._environment},
        )
        self._started.append(process)
        return process

    def cut(self, name: str) -> None:
        """Pull the cable of a host."""
        self._ip("-n", self._switch, "link", "set", self._port(name), "down")

    def mend(self, name: str) -> None:
        """Put the cable back."""
        self._ip("-n", self._switch, "link", "set", self._port(name), "up")

    def remove(self) -> None:
        """End every process of the hosts, and remove their networks."""
        for process in reversed(self._started):
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(30)
            assert process.stdout is not None
            process.stdout.close()
        for space in (*map(self._space, self.addresses), self._switch):
            subprocess.run(["ip", "netns", "del", space], capture_output=True, timeout=_LIMIT_S)

    def _space(self, name: str) -> str:
        return f"{self._prefix}{name}"

    def _port(self, name: str) -> str:
        return f"v{name}"[:15]

    def _ip(self, *arguments: str) -> None:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=_LIMIT_S)
        if done.returncode != 0:
            raise CannotMakeHosts(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


@contextmanager
def hosts(folder: Path, names: tuple[str, ...], environment: dict[str, str]) -> Iterator[Hosts]:
    """Yield hosts whose commands have `environment`, and remove them. Raises CannotMakeHosts."""
    made = Hosts(folder, names, environment)
    try:
        made.make()
        yield made
    finally:
        made.remove()


def wait_for_line(process: subprocess.Popen[str], wanted: str, limit_s: float) -> None:
    """Read the output of a process up to a line that contains `wanted`. Fail with the output if there is none."""
    assert process.stdout is not None
    end, lines = time.monotonic() + limit_s, []
    for line in process.stdout:
        lines.append(line)
        if wanted in line:
            return
        assert time.monotonic() < end, "".join(lines)
    raise AssertionError(f"ended without {wanted!r}:\n" + "".join(lines))
