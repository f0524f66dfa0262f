"""The scripted player of tool use: plays the next call of a solution, a look or a mistake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from envs.base import PRIVILEGED, Observation
from envs.tool_use.agenda import DAYS
from envs.tool_use.content import TITLES
from envs.tool_use.database import TABLES
from envs.tool_use.game import Observe
from envs.tool_use.tasks import LEVELS
from envs.tool_use.tools import DONE
from envs.toolkit.mixed_demonstrator import MixedDemonstrator
from envs.toolkit.tool_calls import CallForm, write_call

FINISH = write_call(DONE)
LOOKS = (
    write_call("list"),
    write_call("read", path="todo.txt"),
    *(write_call("agenda", day=day) for day in DAYS),
    *(write_call("sql", query=f"SELECT * FROM {table}") for table in TABLES),
)
MISTAKES = (
    FINISH,
    write_call("delete", path="todo.txt"),
    write_call("write", path="todo.txt", text="call Ann"),
    write_call("sql", query="UPDATE staff SET salary = 0"),
    *(write_call("cancel", title=title) for title in TITLES[:3]),
)


class ToolUseDemonstrator(MixedDemonstrator):
    """Plays `ToolUse`: the next call of a solution with probability `skill`, else a look or a mistake.

    A mistake calls `done` too early, or spoils a file, a table or the calendar; it is not repaired. The solution is
    known in advance, but it looks up each fact before it uses it.
    """

    def __init__(
        self,
        *,
        skill: float,
        tasks: Sequence[str] | None = None,
        level: int = max(LEVELS),
        observe: Observe = "full",
        cases: int | None = None,
        calls: CallForm = "json",
    ) -> None:
        del tasks, level, observe, cases, calls  # arguments of the environment; `info` holds the task
        super().__init__(skill=skill)
        self._left: list[str] = []

    def begin(self, observation: Observation, info: Mapping[str, Any], *, seed: int) -> None:
        super().begin(observation, info, seed=seed)
        self._left = list(self.state["task"].script)

    def best_actions(self) -> list[str]:
        return self._left[:1] or [FINISH]

    def see(self, action: str, observation: Observation, info: Mapping[str, Any]) -> None:
        super().see(action, observation, info)
        if action in self._left:
            self._left.remove(action)

    def _look(self, info: Mapping[str, Any]) -> None:
        self.state = info[PRIVILEGED]
        self._valid = LOOKS + MISTAKES
