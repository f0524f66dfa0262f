"""Parses what the player types into a command of the village. `World.possible` decides whether it can be done now."""

from __future__ import annotations

from envs.text_adventure.world import COLOURS, DIRECTIONS, KEY, LIGHTS, PEOPLE, TREASURES, WISHES, Command

MAX_LENGTH = 100
"""Longer actions are refused, in characters."""
LOOK: Command = ("look",)
INVENTORY: Command = ("inventory",)

_THINGS = frozenset((*LIGHTS, *WISHES, *TREASURES, KEY))
_PEOPLE = {person.lower() for person in PEOPLE}
_SKIPPED = frozenset(("the", "a", "an", "my", "please", "lever", "at", "around", "to", "with", "about"))
_SHORT = {way[0]: way for way in DIRECTIONS}
_VERBS = {
    verb: meaning
    for meaning, verbs in (
        ("go", "go walk run move climb"),
        ("take", "take get grab pick"),
        ("drop", "drop discard leave"),
        ("light", "light ignite turn switch"),
        ("give", "give offer hand show"),
        ("pull", "pull push press"),
        ("talk", "talk speak ask greet"),
        ("unlock", "unlock open"),
        ("read", "read study"),
        ("look", "look l"),
        ("inventory", "inventory i"),
    )
    for verb in verbs.split()
}


def read_command(action: str) -> Command | None:
    """Return the command that an action means, or None if it cannot be parsed."""
    if len(action) > MAX_LENGTH:
        return None
    words = [word for word in action.lower().rstrip(" .!\n").split() if word not in _SKIPPED]
    if not words:
        return None
    if len(words) == 1 and (way := _SHORT.get(words[0], words[0])) in DIRECTIONS:
        return ("go", way)
    verb, rest = _VERBS.get(words[0]), words[1:]
    if verb is None:
        return None
    return _READERS[verb](verb, rest)


def _direction(verb: str, rest: list[str]) -> Command | None:
    way = _SHORT.get(rest[0], rest[0]) if len(rest) == 1 else ""
    return (verb, way) if way in DIRECTIONS else None


def _thing(verb: str, rest: list[str]) -> Command | None:
    """Parse the name of one thing; the particle of "pick up" or "turn on" may come before or after it."""
    named = [word for word in rest if word not in ("up", "on", "down")]
    return (verb, named[0]) if len(named) == 1 and named[0] in _THINGS else None


def _gift(verb: str, rest: list[str]) -> Command | None:
    return _thing(verb, [word for word in rest if word not in _PEOPLE])


def _colour(verb: str, rest: list[str]) -> Command | None:
    return (verb, rest[0]) if len(rest) == 1 and rest[0] in COLOURS else None


def _bare(verb: str, rest: list[str]) -> Command | None:
    """Parse a verb that has one object in the village; its name may be omitted."""
    objects = {"talk": _PEOPLE, "unlock": {"door", "tower", KEY}, "read": {"log", "logbook", "book"}}
    return (verb,) if all(word in objects.get(verb, ()) for word in rest) else None


_READERS = {
    "go": _direction,
    "take": _thing,
    "drop": _thing,
    "light": _thing,
    "give": _gift,
    "pull": _colour,
} | dict.fromkeys(("talk", "unlock", "read", "look", "inventory"), _bare)


def write_command(command: Command, person: str) -> str:
    """Return a command as the player types it; `read_command` parses it."""
    verb = command[0]
    if verb == "talk":
        return f"talk to {person}"
    if verb == "give":
        return f"give {command[1]} to {person}"
    if verb == "pull":
        return f"pull {command[1]} lever"
    if verb == "unlock":
        return "unlock door with key"
    return "read logbook" if verb == "read" else " ".join(command)
