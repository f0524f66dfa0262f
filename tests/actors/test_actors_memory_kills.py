"""The kernel's count of kills at a memory limit, in both versions of control groups."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors.engine import memory_kills as module
from actors.engine.engine import VllmEngine

V1 = "3:cpuset:/\n4:cpu,memory:/job/7\n0::/\n"
V2 = "0::/job/7\n"


def machine(folder: Path, monkeypatch: pytest.MonkeyPatch, groups: str, **files: str) -> None:
    (folder / "cgroup").write_text(groups)
    for name, text in files.items():
        path = folder / "sys" / name.replace("__", "/").replace("_events", ".events").replace("_oom", ".oom")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(module, "_GROUPS", folder / "cgroup")
    monkeypatch.setattr(module, "_ROOT", folder / "sys")


@pytest.mark.parametrize(
    ("groups", "files", "found"),
    [
        (V2, {"job__7__memory_events": "low 0\noom 4\noom_kill 3\n"}, 3),
        (V2, {"memory_events": "oom_kill 2\n"}, 2),  # the path is the host's
        (V1, {"memory__job__7__memory_oom_control": "under_oom 0\noom_kill 5\n"}, 5),
        (V1, {"memory__memory_oom_control": "under_oom 0\n"}, None),
        (V2, {}, None),
    ],
)
def test_kills_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, files: dict[str, str], found: int | None
) -> None:
    machine(tmp_path, monkeypatch, groups, **files)
    assert module.memory_kills() == found


@pytest.mark.parametrize(("after", "said"), [(3, "the engine's process ended"), (4, "the kernel killed the engine's")])
def test_an_engine_that_dies_at_the_memory_limit_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, said: str
) -> None:
    machine(tmp_path, monkeypatch, V2, memory_events=f"oom_kill {after}\n")
    engine: Any = SimpleNamespace(_memory_kills=3)
    assert VllmEngine.why_died(engine).startswith(said)
