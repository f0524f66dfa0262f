"""A web site of linked pages with forms: what is on them, what can be done there, and what was submitted in the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from envs.web_forms.grammar import Action

Kind: TypeAlias = Literal["link", "button", "textbox", "combobox", "checkbox", "radio", "text"]
Value: TypeAlias = str | bool

USER, PASSWORD = "User", "Password"
"""Labels of the fields by which one logs in."""

MAX_TEXT = 100
"""What is typed beyond this many characters is cut off, as by a field's `maxlength`."""


@dataclass(frozen=True)
class Posted:
    """What a browser would send: the form, and the value of each of its fields."""

    form: str
    fields: Mapping[str, Value]


@dataclass(frozen=True)
class Element:
    """One element of a page.

    label: what is read there, and for fields the key of their value; of a radio button, the value that it stands for.
    group: of a radio button, the key of its value.
    options: of a combobox, what can be chosen.
    to: of a link or button, the page to which it leads.
    does: of a button, what it does: "go" to a page; "clear" puts the form as it was at first; "log in" goes on only
        with the account's user and password; "post" submits.
    form, sends, fixed: of a button that posts, the name of the form, the keys of the fields that it sends, and what it
        sends besides, whatever is filled in.
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
    """A page: its title and elements in their order. All but plain text are numbered, from 1."""

    title: str
    elements: tuple[Element, ...]
    numbered: tuple[Element, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbered", tuple(e for e in self.elements if e.kind != "text"))

    def find(self, element: str) -> Element | None:
        """The element of a number, or the only link or button of a label; None where there is none."""
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
    """pages: by name. initial: the value of every field, by key. account: user and password, where there is one."""

    pages: Mapping[str, Page]
    start: str
    initial: Mapping[str, Value]
    account: tuple[str, str] | None = None


@dataclass(frozen=True)
class State:
    """Where one is and what is filled in. Never changed in place: each action gives another."""

    page: str
    values: Mapping[str, Value]
    posted: Posted | None = None


@dataclass(frozen=True)
class Outcome:
    """The state after an action; what it touched, where it only changed one element; and what to say of it.

    understood: False where there is no such element, or the action makes no sense for its kind.
    """

    state: State
    touched: Element | None = None
    says: str = ""
    understood: bool = True


def begin(site: Site) -> State:
    return State(site.start, site.initial)


def act(site: Site, state: State, action: Action) -> Outcome:
    """Do one thing on the page one is on."""
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
    """The elements of this page that lead to another now, and where to."""
    for element in site.pages[state.page].numbered:
        if element.kind in ("link", "button") and element.does in ("", "go", "log in"):
            after = _click(site, state, element).state
            if after.page != state.page:
                yield element, after.page
