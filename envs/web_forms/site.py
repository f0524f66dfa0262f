"""A web site of linked pages with forms: its elements, its state, the actions on it, and the submitted values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from envs.web_forms.grammar import Action

Kind: TypeAlias = Literal["link", "button", "textbox", "combobox", "checkbox", "radio", "text"]
Value: TypeAlias = str | bool

USER, PASSWORD = "User", "Password"
"""Labels of the fields of the log-in."""

MAX_TEXT = 100
"""Longer texts are cut off, as by the `maxlength` of a field."""


@dataclass(frozen=True)
class Posted:
    """A submission, as a browser sends it: the form and the values of its fields."""

    form: str
    fields: Mapping[str, Value]


@dataclass(frozen=True)
class Element:
    """One element of a page.

    label: visible text; for fields also the key of their value; for a radio button its value.
    group: key of a radio button's value.
    options: choices of a combobox.
    to: target page of a link or button.
    does: action of a button: "go" to a page; "clear" restores the form; "log in" continues only with the user and
        password of the account; "post" submits.
    form, sends, fixed: of a button that posts: name of the form, keys of the fields that it sends, and values that it
        always sends.
    """

    kind: Kind
    label: str
    group: str = ""
    options: tuple[str, ...] = ()
    to: str = ""
    does: Literal["", "go", "clear", "log in", "post"] = ""
    form: str = ""
    sends: tuple[str, ...] = ()
    fixed: tuple[tuple[str, Value], ...] = ()

    @property
    def key(self) -> str:
        return self.group or self.label


@dataclass(frozen=True)
class Page:
    """A page: title and elements in order. All elements except plain text are numbered, from 1."""

    title: str
    elements: tuple[Element, ...]
    numbered: tuple[Element, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbered", tuple(e for e in self.elements if e.kind != "text"))

    def find(self, element: str) -> Element | None:
        """Return the element with a number, or the only link or button with a label; None if there is none."""
        if element.isascii() and element.isdigit() and len(element) < 4:
            number = int(element)
            return self.numbered[number - 1] if 0 < number <= len(self.numbered) else None
        wanted = element.casefold()
        named = [e for e in self.numbered if e.kind in ("link", "button") and e.label.casefold() == wanted]
        return named[0] if len(named) == 1 else None

    def number(self, element: Element) -> int:
        return self.numbered.index(element) + 1


@dataclass(frozen=True)
class Site:
    """A site.

    pages: by name.
    initial: key -> first value of every field.
    account: user and password, or None.
    """

    pages: Mapping[str, Page]
    start: str
    initial: Mapping[str, Value]
    account: tuple[str, str] | None = None


@dataclass(frozen=True)
class State:
    """The current page and the values of the fields. Immutable: each action returns a new one."""

    page: str
    values: Mapping[str, Value]
    posted: Posted | None = None


@dataclass(frozen=True)
class Outcome:
    """The result of an action.

    state: state after it.
    touched: the element that it changed, if it changed one element only.
    says: message of the site.
    understood: False if there is no such element, or the action does not apply to its kind.
    """

    state: State
    touched: Element | None = None
    says: str = ""
    understood: bool = True


def begin(site: Site) -> State:
    return State(site.start, site.initial)


def act(site: Site, state: State, action: Action) -> Outcome:
    """Do one action on the current page; return its outcome."""
    element = site.pages[state.page].find(action.element)
    if element is None:
        return Outcome(state, says="There is no such element.", understood=False)
    if action.verb == "click":
        return _click(site, state, element)
    if action.verb == "type" and element.kind == "textbox":
        return _set(state, element, action.value[:MAX_TEXT])
    if action.verb == "select" and element.kind == "combobox":
        chosen = next((option for option in element.options if option.casefold() == action.value.casefold()), None)
        return Outcome(state, says="There is no such option.") if chosen is None else _set(state, element, chosen)
    if action.verb in ("check", "uncheck") and element.kind == "checkbox":
        return _set(state, element, action.verb == "check")
    if action.verb == "check" and element.kind == "radio":
        return _set(state, element, element.label)
    return Outcome(state, says=f"You can't {action.verb} a {element.kind}.", understood=False)


def _click(site: Site, state: State, element: Element) -> Outcome:
    if element.kind == "checkbox":
        return _set(state, element, not state.values[element.key])
    if element.kind == "radio":
        return _set(state, element, element.label)
    if element.kind == "textbox":
        return Outcome(state, touched=element)
    if element.kind == "combobox":
        return Outcome(state, says="Choose by select.")
    if element.does == "clear":
        return Outcome(replace(state, values=site.initial))
    if element.does == "log in" and (state.values[USER], state.values[PASSWORD]) != site.account:
        return Outcome(state, says="Wrong user or password.")
    if element.does == "post":
        fields = {key: state.values[key] for key in element.sends} | dict(element.fixed)
        return Outcome(replace(state, posted=Posted(element.form, fields)))
    return Outcome(replace(state, page=element.to))


def _set(state: State, element: Element, value: Value) -> Outcome:
    return Outcome(replace(state, values={**state.values, element.key: value}), touched=element)


def ways_on(site: Site, state: State) -> Iterator[tuple[Element, str]]:
    """Yield the elements of the current page that lead to another page now, and that page."""
    for element in site.pages[state.page].numbered:
        if element.kind in ("link", "button") and element.does in ("", "go", "log in"):
            after = _click(site, state, element).state
            if after.page != state.page:
                yield element, after.page
