"""The kernel's kills at the memory limit of this process's control group: a container's limit, or a scheduler's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")


def memory_kills() -> int | None:
    """Return how many processes of this control group the kernel has killed for memory; None if it counts none.

    Without a control group of its own, a process has no limit but the machine's, whose kills `dmesg` has.
    """
    try:
        groups = _GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for path in _counters(groups):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, count = line.partition(" ")
            if name == "oom_kill" and count.isdigit():
                return int(count)
    return None


def _counters(groups: list[str]) -> Iterator[Path]:
    """Yield the files that may count, of both versions of control groups."""
    for line in groups:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            yield _ROOT / group.lstrip("/") / "memory.events"
        elif "memory" in controllers.split(","):
            yield _ROOT / "memory" / group.lstrip("/") / "memory.oom_control"
    # In a container the path is often that of the host, and its own group is the root.
    yield _ROOT / "memory.events"
    yield _ROOT / "memory" / "memory.oom_control"
