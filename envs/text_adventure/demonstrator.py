"""The scripted player of the adventure: plays a tour that collects all points, or any valid command."""

from __future__ import annotations

from collections import deque

from envs.text_adventure.commands import write_command
from envs.text_adventure.world import CARRIED, KEY, Command, World
from envs.toolkit.mixed_demonstrator import MixedDemonstrator

TOUR = ("beach", "boathouse", "square", "church", "graveyard", "market", "inn")
"""The open rooms, in the order of the first visits."""


class TextAdventureDemonstrator(MixedDemonstrator):
    """Plays `TextAdventure(worlds=worlds)`: the next command of its tour with probability `skill`, else any valid
    command.

    It knows the whole village, which the policy cannot see: it ignores the decoys and needs no logbook to pull the
    levers.
    """

    def __init__(self, *, skill: float, worlds: int | None = None) -> None:
        del worlds  # an argument of the environment; `info` holds the village
        super().__init__(skill=skill)

    def best_actions(self) -> list[str]:
        world = self.state["world"]
        return [write_command(best_command(world), world.person)]


def best_command(world: World) -> Command:
    """Return the next command of the tour: open rooms and wanted things, inn, tower, then vault."""
    if world.dark:
        return ("light", world.light) if world.places[world.light] == CARRIED else _back(world)
    wanted = {world.light, world.wish, KEY} if not world.unlocked else {world.light}
    lying = [thing for thing in world.at(world.room) if thing in wanted]
    if lying:
        return ("take", lying[0])
    for room in TOUR:
        if room not in world.done:
            return _towards(world, room)
    for done, room, command in _errands(world):
        if not done:
            return command if world.room == room else _towards(world, room)
    if world.places[world.light] != CARRIED:
        return _towards(world, world.places[world.light])
    if not world.lit:
        return ("light", world.light)
    if world.pulled < len(world.levers):
        return ("pull", world.levers[world.pulled]) if world.room == "grotto" else _towards(world, "grotto")
    return ("take", world.treasure) if world.room == "vault" else _towards(world, "vault")


def _errands(world: World) -> list[tuple[bool, str, Command]]:
    """Return the errands above ground, in order: whether each is done, its room and its command."""
    errands: list[tuple[bool, str, Command]] = [("talk" in world.done, "inn", ("talk",))]
    for thing, done in ((world.wish, "give" in world.done), (KEY, world.unlocked)):
        place = world.places[thing]
        if not done and place not in (CARRIED, "gone"):
            errands.append((False, place, ("take", thing)))
    return [
        *errands,
        ("give" in world.done, "inn", ("give", world.wish)),
        (world.unlocked, "cliff", ("unlock",)),
        ("read" in world.done, "lantern room", ("read",)),
    ]


def _towards(world: World, goal: str) -> Command:
    """Return the first step of a shortest path to a room through open ways; for the vault, through the gate."""
    first: dict[str, str] = {world.room: ""}
    queue = deque([world.room])
    while queue:
        here = queue.popleft()
        for way, there in world.ways[here].items():
            if there not in first and not world.is_shut(there):
                first[there] = first[here] or way
                queue.append(there)
    return ("go", first[goal])


def _back(world: World) -> Command:
    """Return a step out of the dark: up from the cellar. Any other dark room is deadly."""
    return _towards(world, "inn")
