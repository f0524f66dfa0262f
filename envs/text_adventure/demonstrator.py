"""The scripted player of the adventure: between anything possible and a round that leaves no point behind."""

from __future__ import annotations

from collections import deque

from envs.text_adventure.commands import write_command
from envs.text_adventure.world import CARRIED, KEY, Command, World
from envs.toolkit.mixed_demonstrator import MixedDemonstrator

ROUND = ("beach", "boathouse", "square", "church", "graveyard", "market", "inn")
"""The open rooms, in the order in which they are visited first."""


class TextAdventureDemonstrator(MixedDemonstrator):
    """Plays `TextAdventure(worlds=worlds)`: with probability `skill` a turn the next thing of its round, else any.

    It knows the whole village, which the policy must find out: it leaves the decoys lying and pulls the levers unread.
    """

    def __init__(self, *, skill: float, worlds: int | None = None) -> None:
        del worlds  # It takes what the environment takes, and sees the village it is in.
        super().__init__(skill=skill)

    def best_actions(self) -> list[str]:
        world = self.state["world"]
        return [write_command(best_command(world), world.person)]


def best_command(world: World) -> Command:
    """The next command of the round: the open rooms and what is wanted there, the inn, the tower, then the vault."""
    if world.dark:
        return ("light", world.light) if world.places[world.light] == CARRIED else _back(world)
    wanted = {world.light, world.wish, KEY} if not world.unlocked else {world.light}
    lying = [thing for thing in world.at(world.room) if thing in wanted]
    if lying:
        return ("take", lying[0])
    for room in ROUND:
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
    """What is to be done above ground, in order: whether it is done, where, and how."""
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
    """The first step of a shortest way to a room, through what is open; in the vault's case through the gate."""
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
    """Out of the dark: up from the cellar, and lost anywhere else."""
    return _towards(world, "inn")
