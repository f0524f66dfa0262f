"""Parses an action on a page: an element by its number in square brackets, and a value for some verbs.

    click[3]            a link or button, or a box or radio button to switch
    type[2] Ada Park    replace the content of a text field
    select[4] Peru      choose from a list
    check[5]            tick a box; uncheck[5] clears it

The calls of BrowserGym's action set are parsed as well: `click('3')`, `fill('2', 'Ada Park')`, `select_option('4',
'Peru')`, `check('5')`, `uncheck('5')`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

Verb: TypeAlias = Literal["click", "type", "select", "check", "uncheck"]

MAX_LENGTH = 1000
"""Longer actions are refused, in characters."""

# ASCII only; otherwise a Kelvin sign would match the k of "click".
_FLAGS = re.IGNORECASE | re.DOTALL | re.ASCII
_SAME = {"fill": "type", "select_option": "select"}
_WITH_VALUE = ("type", "select")
_WORD = "|".join((*_SAME, *get_args(Verb)))
_BRACKETS = re.compile(rf"({_WORD}) ?\[([^\[\]]*)\](.*)", _FLAGS)
_QUOTED = r"""(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")"""
_CALL = re.compile(rf"({_WORD}) ?\( ?{_QUOTED} ?(?:, ?{_QUOTED} ?)?\)", _FLAGS)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True)
class Action:
    """An action.

    element: text in the brackets: a number, or the label of a link or button.
    value: "" for a click.
    """

    verb: Verb
    element: str
    value: str = ""


def read_action(text: str) -> Action | None:
    """Return the action that a text means, or None if it cannot be parsed. White space becomes single spaces."""
    if len(text) > MAX_LENGTH:
        return None
    text = " ".join(text.split())
    match = _BRACKETS.fullmatch(text)
    if match is not None:
        verb, element, value = match[1], match[2], match[3]
    else:
        match = _CALL.fullmatch(text)
        if match is None:
            return None
        element = _unescaped(match[2] if match[2] is not None else match[3])
        value = _unescaped(match[4] or match[5] or "")
        verb = match[1]
    verb, element, value = verb.lower(), element.strip(), value.strip()
    verb = _SAME.get(verb, verb)
    if not element or (value and verb not in _WITH_VALUE):
        return None
    return Action(verb, element, value)  # type: ignore[arg-type]  # the pattern allows no other verb


def write_action(action: Action) -> str:
    """Return an action as the player types it; `read_action` parses it."""
    return f"{action.verb}[{action.element}] {action.value}".rstrip()


def _unescaped(quoted: str) -> str:
    return _ESCAPED.sub(r"\1", quoted)
