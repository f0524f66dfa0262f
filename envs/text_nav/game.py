"""The game, after LMRL-Gym's Text-Nav (Abdulhai et al. 2023).

From there come a house of eight rooms with things on tables and in closed containers; a task of the form "put this in
that and close it", 1 for solving it and 0 on every other turn; eating the thing as the way to lose; a random start; and
two tellings, fully and partially observed. Ours is a small world of its own instead of a TextWorld game. It draws the
task and what lies where from the seed, where the original has one task; it has doors; and it does not list the valid
commands in the observation (they are in `info["valid_actions"]`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from envs.base import INVALID_ACTION, PRIVILEGED, SUCCESS, TASK_ID, VALID_ACTIONS, EnvSpec, Info, Step
from envs.errors import EnvArgumentError, EnvStateError
from envs.text_nav.commands import preposition, read_command, write_command
from envs.text_nav.world import CARRIED, CONTAINERS, DIRECTIONS, DOOR, FURNITURE, ROOMS, Command, House, draw_house

Observe: TypeAlias = Literal["full", "partial"]

VERBS = "You can go, open, close, take, put and eat."
SOLVED = "You solved the task."
LOST = "You lost."
INVALID = "Invalid command."
IMPOSSIBLE = "You can't do that."
NO_WAY = "You can't go that way."
SHUT = "The door is closed."

MAX_TURNS = 30


class TextNav:
    """Put a thing of the house into a container and close that: 1 on the turn that solves it, 0 on all others.

    observe: "full" tells where thing and container are and in which room one is; "partial" tells neither, but what
        there is to see. What is in a closed container is seen only once it is opened.

    Eating the thing loses: the episode ends, `terminated` and without success. A room is described when it is entered;
    any other turn is answered by what it did.
    """

    spec: ClassVar[EnvSpec] = EnvSpec(
        id="text_nav",
        description="Find a thing in a house of eight rooms and put it away.",
        max_turns=MAX_TURNS,
        reward_range=(0.0, 1.0),
    )

    def __init__(self, *, observe: Observe = "full") -> None:
        if observe not in get_args(Observe):
            raise EnvArgumentError(f"{self.spec.id}: observe is {observe!r}, must be one of {get_args(Observe)}")
        self.observe = observe
        self._house: House | None = None

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[str, Info]:
        """Draw the house of `seed`. There are no reset options: any raises EnvArgumentError."""
        if options:
            raise EnvArgumentError(f"{self.spec.id}: unknown reset options {sorted(options)}: there are none")
        house = self._house = draw_house(seed)
        task = f"Put the {house.thing} in the {house.container} and close it."
        if self.observe == "full":
            place = house.places[house.thing]
            task += f" The {house.thing} is {preposition(place)} the {place} in the {FURNITURE[place]}."
            task += f" The {house.container} is in the {FURNITURE[house.container]}."
        return f"{task} {VERBS} {self._describe(house)}", self._info(house) | {TASK_ID: f"house-{seed}"}

    def step(self, action: str) -> Step:
        """Do one thing. Any string is an action; what isn't understood is answered so."""
        house = self._house
        if house is None:
            raise EnvStateError(f"step of {self.spec.id}: the episode has not begun: call reset first")
        command = read_command(action)
        if command is None:
            return INVALID, 0.0, False, False, self._info(house) | {INVALID_ACTION: True}
        if command not in house.possible():
            return why_not(house, command), 0.0, False, False, self._info(house)
        house.do(command)
        text = self._describe(house) if command[0] == "go" else tell(house, command)
        if house.solved:
            return f"{text} {SOLVED}", 1.0, True, False, self._info(house)
        if house.lost:
            return f"{text} {LOST}", 0.0, True, False, self._info(house)
        return text, 0.0, False, False, self._info(house)

    def close(self) -> None:
        self._house = None

    def _describe(self, house: House) -> str:
        """The room one is in: its furniture, what is seen there, and the ways out."""
        seen = ", ".join(describe_furniture(house, name) for name in house.furniture())
        exits = ", ".join(
            f"{way} (closed)" if house.is_shut(way) else way for way in DIRECTIONS if way in ROOMS[house.room]
        )
        room = f"{house.room.capitalize()}. " if self.observe == "full" else ""
        return f"{room}You see: {seen}. Exits: {exits}."

    def _info(self, house: House) -> Info:
        return {
            SUCCESS: house.solved,
            INVALID_ACTION: False,
            VALID_ACTIONS: [write_command(command) for command in house.possible()],
            PRIVILEGED: {"house": house.copy()},
        }


def describe_furniture(house: House, name: str) -> str:
    """A piece of furniture, and in brackets what is in or on it or that it is closed."""
    if name in CONTAINERS and name not in house.open:
        return f"{name} (closed)"
    return f"{name} ({describe_things(house.held_by(name))})"


def describe_things(things: Sequence[str]) -> str:
    """Names of things, or that there is none."""
    return ", ".join(things) or "empty"


def tell(house: House, command: Command) -> str:
    """What a command other than going did."""
    verb, what, *where = command
    if verb == "open" and what != DOOR:
        return f"You open the {what}: {describe_things(house.held_by(what))}."
    if where:
        return f"You put the {what} {preposition(where[0])} the {where[0]}."
    return f"You {verb} the {what}."


def why_not(house: House, command: Command) -> str:
    """Why a command is not possible now, as far as one can see."""
    verb, what, *where = command
    if verb == "go":
        return SHUT if what in ROOMS[house.room] else NO_WAY
    if where and where[0] in house.furniture() and house.places.get(what) == CARRIED:
        return f"The {where[0]} is closed."
    return IMPOSSIBLE
