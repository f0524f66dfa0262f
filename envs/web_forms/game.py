"""The environment `WebForms`: shows pages as a compact accessibility tree; 1 for submitting what the task asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from envs.base import INVALID_ACTION, PRIVILEGED, SUCCESS, TASK_ID, VALID_ACTIONS, EnvSpec, Info, Step
from envs.errors import EnvArgumentError, EnvStateError, nearest
from envs.toolkit.argument_checks import check_one_of, refuse_options
from envs.web_forms.grammar import read_action
from envs.web_forms.site import Element, Outcome, Page, State, act, begin
from envs.web_forms.tasks import KINDS, LEVELS, Task, draw_task

VERBS = "Actions: click[n], type[n] text, select[n] option."
INVALID = "Invalid action."
SOLVED = "You submitted the form. Task solved."
FAILED = "You submitted the form. Task failed."

MAX_TURNS = 10

_QUOTED = re.compile(r'"([^"]*)"')


class WebForms:
    """Find a page of a small web site, fill in its form as the task says, and submit it: 1 if all fields are right,
    else 0.

    level: kinds of tasks that a seed draws from. 1: one page with one or two fields to set, or one link to follow. 2:
        also forms with several fields, and products two links away. 3: also forms over several pages, a log-in before
        the form, and products on shelves that the task does not name.
    kind: draw tasks of this kind only, whatever its level.

    The first submission ends the episode. It is judged by the values of all fields that it sends.
    """

    spec: ClassVar[EnvSpec] = EnvSpec(
        id="web_forms",
        description="Find a page, fill in its form and submit it.",
        max_turns=MAX_TURNS,
        reward_range=(0.0, 1.0),
    )

    def __init__(self, *, level: int = 3, kind: str | None = None) -> None:
        self.check_arguments(level=level, kind=kind)
        self.kinds = LEVELS[level] if kind is None else (kind,)
        self._task: Task | None = None
        self._state: State | None = None
        self._quoted: list[str] = []

    @staticmethod
    def check_arguments(*, level: int = 3, kind: str | None = None) -> None:
        """Raise EnvArgumentError for an unknown level or kind."""
        check_one_of("web_forms", "level", level, list(LEVELS))
        if kind is not None and kind not in KINDS:
            raise EnvArgumentError(f"web_forms: there is no kind {kind!r}: {nearest(str(kind), KINDS)}")

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[str, Info]:
        """Draw the site and task of `seed`. Raises EnvArgumentError for any option, because there are none."""
        refuse_options(self.spec.id, options)
        task = self._task = draw_task(seed, self.kinds)
        state = self._state = begin(task.site)
        self._quoted = _QUOTED.findall(task.instruction)
        page = describe_page(task.site.pages[state.page], state)
        return f"{task.instruction}\n{VERBS}\n{page}", self._info(task, state) | {TASK_ID: f"{task.kind}-{seed}"}

    def step(self, action: str) -> Step:
        """Do one action on the page. An action that cannot be parsed costs the turn."""
        if self._task is None or self._state is None:
            raise EnvStateError(f"step of {self.spec.id}: the episode has not begun: call reset first")
        task, before = self._task, self._state
        read = read_action(action)
        if read is None:
            return INVALID, 0.0, False, False, self._info(task, before, invalid=True)
        outcome = act(task.site, before, read)
        state = self._state = outcome.state
        if state.posted is not None:
            solved = state.posted == task.wanted
            text = SOLVED if solved else FAILED
            return text, float(solved), True, False, self._info(task, state, solved=solved)
        text = self._describe(task, state, outcome)
        return text, 0.0, False, False, self._info(task, state, invalid=not outcome.understood)

    def close(self) -> None:
        self._task = self._state = None

    @staticmethod
    def _describe(task: Task, state: State, outcome: Outcome) -> str:
        """Return what is new: a message of the site, the element that changed, or the new page."""
        if outcome.says:
            return outcome.says
        page = task.site.pages[state.page]
        return describe_page(page, state) if outcome.touched is None else describe_element(page, outcome.touched, state)

    def _info(self, task: Task, state: State, *, solved: bool = False, invalid: bool = False) -> Info:
        page = task.site.pages[state.page]
        valid = [] if state.posted is not None else list(valid_actions(page, self._quoted))
        return {
            SUCCESS: solved,
            INVALID_ACTION: invalid,
            VALID_ACTIONS: valid,
            PRIVILEGED: {"task": task, "state": state},
        }


def describe_page(page: Page, state: State) -> str:
    """Return a page as an accessibility tree: its title, then one line per element."""
    return "\n".join([f"Page: {page.title}", *(describe_element(page, element, state) for element in page.elements)])


def describe_element(page: Page, element: Element, state: State) -> str:
    """Return one element: number, role, label, and the value of a field."""
    if element.kind == "text":
        return element.label
    head = f"[{page.number(element)}] {element.kind} "
    if element.kind in ("link", "button"):
        return head + element.label
    value = state.values[element.key]
    if element.kind == "checkbox":
        return f"{head}{element.label}: {'on' if value else 'off'}"
    if element.kind == "radio":
        return f"{head}{element.group} {element.label}: {'on' if value == element.label else 'off'}"
    options = f" ({', '.join(element.options)})" if element.options else ""
    return f"{head}{element.label}: {value or 'empty'}{options}"


def valid_actions(page: Page, quoted: list[str]) -> list[str]:
    """Return the actions that a page allows; text fields take the texts that the task quotes."""
    found = []
    for number, element in enumerate(page.numbered, start=1):
        if element.kind == "textbox":
            found += [f"type[{number}] {text}" for text in quoted]
        elif element.kind == "combobox":
            found += [f"select[{number}] {option}" for option in element.options]
        else:
            found.append(f"click[{number}]")
    return found
