"""The scripted player of web forms: plays a step of a shortest solution, or any valid action."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from envs.toolkit.mixed_demonstrator import MixedDemonstrator
from envs.web_forms.grammar import Action, write_action
from envs.web_forms.site import PASSWORD, USER, Element, Site, State, ways_on
from envs.web_forms.tasks import Task


class WebFormsDemonstrator(MixedDemonstrator):
    """Plays `WebForms(level=level, kind=kind)`: a step of a shortest solution with probability `skill`, else any valid
    action.

    It knows the whole site, which the policy cannot see.
    """

    def __init__(self, *, skill: float, level: int = 3, kind: str | None = None) -> None:
        del level, kind  # arguments of the environment; `info` holds the task
        super().__init__(skill=skill)

    def best_actions(self) -> list[str]:
        return [write_action(action) for action in next_actions(self.state["task"], self.state["state"])]


def next_actions(task: Task, state: State) -> list[Action]:
    """Return the next actions, all equally good: fill in a wrong field of this page, else go to a page with one, else
    submit.
    """
    page = task.site.pages[state.page]
    here = list(_to_fill(task, state, state.page))
    if here:
        return [_setting(page.number(element), element, task) for element in here]
    ends = {name for name in task.site.pages if any(_to_fill(task, state, name))}
    if not ends:
        for element in page.numbered:
            if _submits(element, task):
                return [Action("click", str(page.number(element)))]
        ends = {name for name, end in task.site.pages.items() if any(_submits(e, task) for e in end.numbered)}
    return [Action("click", str(page.number(_step_towards(task.site, state, ends))))]


def _to_fill(task: Task, state: State, name: str) -> Iterator[Element]:
    """Yield the fields of a page with a wrong value. Fields that the task does not mention must keep their
    first value.
    """
    wanted = dict(task.site.initial) | dict(task.needs)
    if not _logging_in(task.site, state):
        wanted = {key: value for key, value in wanted.items() if key not in (USER, PASSWORD)}
    for element in task.site.pages[name].numbered:
        if element.kind == "radio" and wanted.get(element.key) != element.label:
            continue
        if element.key in wanted and element.key in state.values and state.values[element.key] != wanted[element.key]:
            yield element


def _logging_in(site: Site, state: State) -> bool:
    """Return whether the account must still be entered: no page behind it can be reached from here."""
    return site.account is not None and state.page in ("home", "log in")


def _submits(element: Element, task: Task) -> bool:
    """Return whether a button submits the right form, given right fields."""
    return element.form == task.wanted.form and dict(element.fixed).items() <= task.wanted.fields.items()


def _setting(number: int, element: Element, task: Task) -> Action:
    wanted = task.needs.get(element.key, task.site.initial[element.key])
    if element.kind in ("textbox", "combobox"):
        return Action("type" if element.kind == "textbox" else "select", str(number), str(wanted))
    return Action("click", str(number))


def _step_towards(site: Site, state: State, ends: set[str]) -> Element:
    """Return the link or button on a shortest path to one of the pages `ends`."""
    first: dict[str, Element] = {}
    queue = deque([state.page])
    while queue:
        here = queue.popleft()
        for element, there in ways_on(site, State(here, state.values)):
            if there not in first and there != state.page:
                first[there] = first.get(here, element)
                if there in ends:
                    return first[there]
                queue.append(there)
    raise AssertionError(f"no way from {state.page} to any of {sorted(ends)}")
