"""The scripted player of Text-Nav: between anything possible and the shortest way to solve the task."""

from __future__ import annotations

from envs.text_nav.commands import write_command
from envs.text_nav.game import Observe
from envs.text_nav.world import CARRIED, CONTAINERS, DOOR, FURNITURE, Command, House, way_to
from envs.toolkit.mixed_demonstrator import MixedDemonstrator


class TextNavDemonstrator(MixedDemonstrator):
    """Plays `TextNav(observe=observe)`: with probability `skill` a turn the shortest way on, else any valid command.

    It knows the whole house, which the policy must find out. Of two ways of one length it takes the same one always.
    """

    def __init__(self, *, skill: float, observe: Observe = "full") -> None:
        del observe  # It takes what the environment takes, and sees the house whichever way it is told.
        super().__init__(skill=skill)

    def best_actions(self) -> list[str]:
        return [write_command(best_command(self.state["house"]))]


def best_command(house: House) -> Command:
    """The next command of a shortest way to solve the task."""
    place = house.places[house.thing]
    target = house.container if place == CARRIED else place
    if house.room != FURNITURE[target]:
        return _step_towards(house, FURNITURE[target])
    if place == house.container:
        return ("close", place)
    if target in CONTAINERS and target not in house.open:
        return ("open", target)
    return ("put", house.thing, target) if place == CARRIED else ("take", house.thing)


def _step_towards(house: House, room: str) -> Command:
    direction = way_to(house.room, room)
    return ("open", DOOR) if house.is_shut(direction) else ("go", direction)
