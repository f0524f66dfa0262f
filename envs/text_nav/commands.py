"""Parses what the player types into a command of the house. `House.possible` decides whether it can be done now."""

from __future__ import annotations

import re

from envs.text_nav.world import CONTAINERS, DIRECTIONS, DOOR, FURNITURE, THINGS, Command

MAX_LENGTH = 100
"""Longer actions are refused, in characters."""

_THINGS, _FURNITURE, _OPENINGS = ("|".join(names) for names in (THINGS, FURNITURE, (*CONTAINERS, DOOR)))
_FORMS = tuple(
    re.compile(form)
    for form in (
        rf"(?P<verb>go|walk|move) (?:to )?(?P<what>{'|'.join(DIRECTIONS)})",
        rf"(?P<verb>open|close|shut) (?P<what>{_OPENINGS})",
        # The place is ignored, because each thing exists once.
        rf"(?P<verb>take|get|pick up) (?P<what>{_THINGS})(?: (?:from|off|out of) (?:{_FURNITURE}))?",
        rf"(?P<verb>put|insert|place) (?P<what>{_THINGS}) (?:in|into|on|onto) (?P<where>{_FURNITURE})",
        rf"(?P<verb>eat) (?P<what>{_THINGS})",
    )
)
_SAME = {
    "walk": "go",
    "move": "go",
    "shut": "close",
    "get": "take",
    "pick up": "take",
    "insert": "put",
    "place": "put",
}
_ARTICLE = re.compile(r"\b(?:the|an?) ")


def read_command(action: str) -> Command | None:
    """Return the command that an action means, or None if it cannot be parsed."""
    if len(action) > MAX_LENGTH:
        return None
    text = _ARTICLE.sub("", " ".join(action.lower().split()).rstrip(" .!"))
    for form in _FORMS:
        match = form.fullmatch(text)
        if match:
            parts = match.groupdict()
            verb = _SAME.get(parts["verb"], parts["verb"])
            return (verb, parts["what"], parts["where"]) if verb == "put" else (verb, parts["what"])
    return None


def write_command(command: Command) -> str:
    """Return a command as the player types it; `read_command` parses it."""
    verb, what, *where = command
    if not where:
        return f"{verb} {what}"
    return f"{verb} {what} {preposition(where[0])} {where[0]}"


def preposition(furniture: str) -> str:
    """Return "in" for a container and "on" for other furniture."""
    return "in" if furniture in CONTAINERS else "on"
