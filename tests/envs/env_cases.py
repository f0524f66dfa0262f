"""Small environments for the tests of hosting and registry; importable in a child process."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from dataclasses import replace
from typing import NoReturn

from envs import EnvSpec

SPEC = EnvSpec(id="counting", description="Counts its turns.", max_turns=3, reward_range=(0.0, 3.0))


class Counting:
    """Answers each action with turn, thread and process; ends on "end". "hang", "raise" and "die" do what they say."""

    spec = SPEC

    def __init__(self, *, isolation: str = "inline", hang_s: float = 60.0) -> None:
        self.spec = replace(SPEC, isolation=isolation)
        self.hang_s = hang_s
        self.turn = 0
        self.closed = 0

    def reset(self, *, seed, options=None):
        self.turn = 0
        return f"seed {seed}", {"task_id": str(seed), "pid": os.getpid(), "options": options}

    def step(self, action):
        self.turn += 1
        if action == "hang":
            time.sleep(self.hang_s)
        if action == "raise":
            raise ValueError("the game broke")
        if action == "die":
            os._exit(7)
        info = {"pid": os.getpid(), "thread": threading.get_ident()}
        return f"turn {self.turn}", 1.0, action == "end", False, info

    def close(self):
        self.closed += 1


class InChild(Counting):
    """The same environment with isolation `process` in its class spec."""

    spec = replace(SPEC, id="in_child", isolation="process")

    def __init__(self) -> None:
        super().__init__(isolation="process")


class Unmade(InChild):
    """An environment whose constructor raises."""

    def __init__(self) -> None:
        raise OSError("no story file")


class Coroutines(Counting):
    """An environment with its own coroutines, which must be used."""

    async def areset(self, *, seed, options=None):
        await asyncio.sleep(0)
        return f"own {seed}", {}

    async def astep(self, action):
        await asyncio.sleep(self.hang_s if action == "hang" else 0)
        return "own", 1.0, False, False, {"thread": threading.get_ident()}


def _raise(kind: str) -> NoReturn:
    kinds = {"SystemExit": SystemExit(3), "CancelledError": asyncio.CancelledError(), "GeneratorExit": GeneratorExit()}
    raise kinds.get(kind, BaseException("no ordinary exception"))


class Raising(Counting):
    """Raises in every step what is no `Exception`."""

    def __init__(self, kind: str, *, isolation: str = "inline") -> None:
        super().__init__(isolation=isolation)
        self.kind = kind

    def step(self, action):
        _raise(self.kind)


class RaisingCoroutines(Coroutines):
    """The same from a coroutine."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    async def astep(self, action):
        await asyncio.sleep(0)
        _raise(self.kind)


class NoEnv:
    """A class without the methods of an environment."""
