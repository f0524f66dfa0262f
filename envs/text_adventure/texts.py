"""Texts that describe the village, the effects of commands and the reasons for refusals."""

from __future__ import annotations

from collections.abc import Mapping

from envs.text_adventure.commands import INVENTORY, LOOK
from envs.text_adventure.world import CARRIED, DARK, WRONG_PULLS, Command, World

INVALID = "You don't know how to do that."
IMPOSSIBLE = "You can't do that here."
NO_WAY = "You can't go that way."
DARKNESS = "It is pitch dark. To go on without a light would be the end of you."
WON = "You have found what you came for."

ROOM_TEXTS: Mapping[str, str] = {
    "harbour": "Boats knock against the quay.",
    "beach": "Wet sand, and the tide far out.",
    "boathouse": "Upturned hulls and the smell of tar.",
    "square": "A dry well stands amid the houses.",
    "inn": "A low room with a fire, and steps down behind the bar.",
    "church": "Candles burn before a wooden saint.",
    "graveyard": "Crooked stones in long grass.",
    "market": "Empty stalls under sailcloth.",
    "cliff": "A lighthouse tower stands at the edge.",
    "tower": "The foot of a winding stair.",
    "lantern room": "A logbook lies open under the great lamp.",
    "cellar": "Barrels, and a hole broken into the wall.",
    "tunnel": "Water drips from the rock.",
    "grotto": "Three levers stand before a stone gate.",
    "vault": "A chamber cut into the rock.",
}


def describe(world: World) -> str:
    """Return the text of the room: description, people, things and exits."""
    if world.dark:
        return DARKNESS
    parts = [f"{world.room.capitalize()}. {ROOM_TEXTS[world.room]}"]
    if world.room == "inn":
        parts.append(f"{world.person} is here.")
    elif world.room == "grotto":
        parts.append(f"The levers are {', '.join(sorted(world.levers))}.")
    things = world.at(world.room)
    if things:
        parts.append(f"You see: {', '.join(things)}.")
    exits = [f"{way} (shut)" if world.is_shut(room) else way for way, room in world.ways[world.room].items()]
    parts.append(f"Exits: {', '.join(exits)}.")
    return " ".join(parts)


def describe_effect(world: World, command: Command, points: int) -> str:
    """Return the text for a command that was done and for the points that it gained."""
    verb = command[0]
    if verb == "go":
        text = "You step into nothing and fall. You are dead." if world.dead else describe(world)
    elif verb == "pull":
        text = _describe_lever(world, command[1])
    elif verb == "talk":
        text = _describe_talk(world)
    elif verb == "give":
        taken = world.places[command[1]] != CARRIED
        text = f"{world.person} hands you a key. {_describe_talk(world)}" if taken else '"What would I do with that?"'
    elif verb == "read":
        first, second, last = world.levers
        text = f'The logbook says: "{second.capitalize()} after {first}, and {last} after {second}."'
    elif verb == "unlock":
        text = "The tower's door swings open."
    else:
        text = f"You {verb} the {command[1]}."
        if verb == "light" and world.room in DARK:
            text += " " + describe(world)
    if world.won:
        text += " " + WON
    return f"{text} [+{points} points]" if points else text


def describe_no_effect(world: World, command: Command) -> str:
    """Return the text for a command that is not possible now: what `look` and `inventory` show, or the reason."""
    if command == LOOK:
        return describe(world)
    if command == INVENTORY:
        return f"You carry: {', '.join(world.at(CARRIED)) or 'nothing'}."
    if command[0] == "go":
        shut = command[1] in world.ways[world.room] and world.is_shut(world.ways[world.room][command[1]])
        return "It is shut." if shut else NO_WAY
    return DARKNESS if world.dark else IMPOSSIBLE


def _describe_talk(world: World) -> str:
    if "give" not in world.done:
        return f'{world.person} says: "Bring me my {world.wish} and you get the key of the lighthouse."'
    return f'{world.person} says: "Read the log up there. My cellar leads to the {world.treasure}; take a light."'


def _describe_lever(world: World, colour: str) -> str:
    if world.dead:
        return "The roof comes down on you. You are dead."
    if world.pulled == 0:
        return f"Stones fall from the roof, and all levers spring back. It bears {WRONG_PULLS - 1 - world.wrong} more."
    if world.pulled == len(world.levers):
        return f"The {colour} lever clicks. The stone gate opens."
    return f"The {colour} lever clicks."
