"""The environment `ToolUse`: office tasks with files, tables and a calendar, judged by the state at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from envs.base import INVALID_ACTION, PRIVILEGED, SUCCESS, TASK_ID, EnvSpec, Info, Step
from envs.errors import EnvStateError
from envs.tool_use.database import describe_tables
from envs.tool_use.desktop import Desktop, State
from envs.tool_use.tasks import LEVELS, Task, draw_task
from envs.tool_use.tools import DONE, TOOLS
from envs.toolkit.argument_checks import check_count, check_one_of, choose_several, refuse_options
from envs.toolkit.tool_calls import CallForm, ToolError

Observe: TypeAlias = Literal["full", "brief"]

MAX_TURNS = 12
SOLVED = "The task is solved."
FAILED = "The task is not solved."


class ToolUse:
    """Do a task by tool calls, then call `done`: 1 if files, tables and calendar are exactly as they should be, else 0.

    An additional file or a changed row makes the state wrong. The calls that led to the state do not matter. A call
    that cannot be done changes nothing and costs the turn.

    tasks: families of tasks to draw from, of those of `level`; None for all of them.
    level: 1: tasks of one step; 2: also tasks that must look something up first; 3: also tasks that combine several
        steps.
    observe: "full" gives tools and tables with the task; "brief" gives the task alone, for a policy that knows them.
    cases: number of distinct cases (seed modulo cases), which a policy can memorize; None draws one case per seed.
    calls: how the policy writes calls; "native" leaves the description of the tools to the chat template.
    """

    spec: ClassVar[EnvSpec] = EnvSpec(
        id="tool_use",
        description="Do small office work with files, SQL, a calculator and a calendar.",
        max_turns=MAX_TURNS,
        reward_range=(0.0, 1.0),
        tools=TOOLS.schemas,
    )

    def __init__(
        self,
        *,
        tasks: Sequence[str] | None = None,
        level: int = max(LEVELS),
        observe: Observe = "full",
        cases: int | None = None,
        calls: CallForm = "json",
    ) -> None:
        check_one_of(self.spec.id, "level", level, tuple(LEVELS))
        check_one_of(self.spec.id, "observe", observe, get_args(Observe))
        check_count(self.spec.id, "cases", cases)
        check_one_of(self.spec.id, "calls", calls, get_args(CallForm))
        self.tasks = choose_several(self.spec.id, "tasks", tasks, LEVELS[level])
        self.observe = observe
        self.cases = cases
        self._tools = TOOLS.written(calls)
        self._desktop: Desktop | None = None
        self._task: Task | None = None
        self._goal: State | None = None

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[str, Info]:
        """Draw the task of `seed`. Raises EnvArgumentError for any option, because there are none."""
        refuse_options(self.spec.id, options)
        number = seed if self.cases is None else seed % self.cases
        content, task = draw_task(number, self.tasks)
        desktop = self._desktop = self._desktop or Desktop()
        desktop.fill(content)
        for action in task.script:
            desktop.do(TOOLS.read(action))
        self._goal = desktop.state()
        desktop.fill(content)
        self._task = task
        first = f"Task: {task.text}"
        if self.observe == "full":
            first = f"{self._tools.describe()} Tables: {describe_tables()}. {first}".lstrip()
        return first, self._info() | {TASK_ID: f"{task.family}-{number}"}

    def step(self, action: str) -> Step:
        """Do one call. An action that is not a call costs the turn."""
        if self._task is None or self._desktop is None:
            raise EnvStateError(f"step of {self.spec.id}: the episode has not begun: call reset first")
        try:
            call = self._tools.read(action)
            if call.tool == DONE:
                solved = self._desktop.state() == self._goal
                return SOLVED if solved else FAILED, float(solved), True, False, self._info() | {SUCCESS: solved}
            return self._desktop.do(call), 0.0, False, False, self._info()
        except ToolError as error:
            return f"Error: {error}.", 0.0, False, False, self._info() | {INVALID_ACTION: True}

    def close(self) -> None:
        self._task = None
        if self._desktop is not None:
            self._desktop.close()
            self._desktop = None

    def _info(self) -> Info:
        return {SUCCESS: False, INVALID_ACTION: False, PRIVILEGED: {"task": self._task}}
