"""The scripted player of Text-Nav: plays a command of a shortest solution, or any valid command."""

from __future__ import annotations

from envs.text_nav.commands import write_command
from envs.text_nav.game import Observe
from envs.text_nav.world import CARRIED, CONTAINERS, DOOR, FURNITURE, Command, House, way_to
from envs.toolkit.mixed_demonstrator import MixedDemonstrator


class TextNavDemonstrator(MixedDemonstrator):
    """Plays `TextNav(observe=observe)`: a command of a shortest solution with probability `skill`, else any valid
    command.

    It knows the whole house, which the policy cannot see. Between two shortest paths it always chooses the same one.
    """

    def __init__(self, *, skill: float, observe: Observe = "full") -> None:
        del observe  # an argument of the environment; `info` holds the house in both modes
        super().__init__(skill=skill)

    def best_actions(self) -> list[str]:
        return [write_command(best_command(self.state["house"]))]


def best_command(house: House) -> Command:
    """Return the next command of a shortest solution."""
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
