"""The environment `TextNav`, after LMRL-Gym's Text-Nav (Abdulhai et al. 2023).

As in the original: a house of eight rooms with things on tables and in closed containers; a task of the form "put this
in that and close it", with 1 for solving it and 0 on all other turns; eating the thing loses; a random start; full and
partial observation. Different: the world is written for this project instead of being a TextWorld game. The seed draws
the task and the places of things, where the original has one task. The house has doors. Observations do not list the
valid commands; `info["valid_actions"]` does.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from envs.base import INVALID_ACTION, PRIVILEGED, SUCCESS, TASK_ID, VALID_ACTIONS, EnvSpec, Info, Step
from envs.errors import EnvStateError
from envs.text_nav.commands import preposition, read_command, write_command
from envs.text_nav.world import (
    CARRIED,
    CONTAINERS,
    DIRECTIONS,
    DOOR,
    DOORS,
    FOOD,
    FURNITURE,
    ROOMS,
    Command,
    House,
    draw_house,
)
from envs.toolkit.argument_checks import check_one_of, refuse_options

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
    """Put a thing into a container and close the container: 1 on the turn that solves the task, 0 on all others.

    observe: "full" gives the places of thing and container and the name of the room; "partial" gives only what can be
        seen. Things in a closed container are seen only after it is opened.

    Eating the thing ends the episode: terminated, without success. A room is described when the player enters it; other
    turns describe the effect of the command.
    """

    spec: ClassVar[EnvSpec] = EnvSpec(
        id="text_nav",
        description="Find a thing in a house of eight rooms and put it away.",
        max_turns=MAX_TURNS,
        reward_range=(0.0, 1.0),
    )

    def __init__(self, *, observe: Observe = "full") -> None:
        check_one_of(self.spec.id, "observe", observe, get_args(Observe))
        self.observe = observe
        self._house: House | None = None

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[str, Info]:
        """Draw the house of `seed`. Raises EnvArgumentError for any option, because there are none."""
        refuse_options(self.spec.id, options)
        house = self._house = draw_house(seed)
        task = f"Put the {house.thing} in the {house.container} and close it."
        if self.observe == "full":
            place = house.places[house.thing]
            task += f" The {house.thing} is {preposition(place)} the {place} in the {FURNITURE[place]}."
            task += f" The {house.container} is in the {FURNITURE[house.container]}."
        return f"{task} {VERBS} {self._describe(house)}", self._info(house) | {TASK_ID: f"house-{seed}"}

    def step(self, action: str) -> Step:
        """Do one command. An action that cannot be parsed, or a command that is not possible now, costs the turn."""
        house = self._house
        if house is None:
            raise EnvStateError(f"step of {self.spec.id}: the episode has not begun: call reset first")
        command = read_command(action)
        if command is None:
            return INVALID, 0.0, False, False, self._info(house) | {INVALID_ACTION: True}
        if command not in house.possible():
            return describe_refusal(house, command), 0.0, False, False, self._info(house)
        house.do(command)
        text = self._describe(house) if command[0] == "go" else describe_effect(house, command)
        if house.solved:
            return f"{text} {SOLVED}", 1.0, True, False, self._info(house)
        if house.lost:
            return f"{text} {LOST}", 0.0, True, False, self._info(house)
        return text, 0.0, False, False, self._info(house)

    def restore(self, privileged: Mapping[str, Any]) -> Info:
        """Continue from a state of an earlier `info`, for `envs.exact_values`."""
        self._house = privileged["house"].copy()
        return self._info(self._house)

    def value_key(self, privileged: Mapping[str, Any]) -> Hashable:
        """Return what determines the value of a state: the task, the room, the thing's place, and what is open.

        Other things do not matter. A third container does not matter either: a thing that is put into it must be taken
        out again.
        """
        house: House = privileged["house"]
        place = house.places[house.thing]
        open_now = house.open & {place, house.container, *DOORS}
        return house.thing in FOOD, house.container, house.room, place, frozenset(open_now)

    def close(self) -> None:
        self._house = None

    def _describe(self, house: House) -> str:
        """Return the text of the room: its furniture, the visible things and the exits."""
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
    """Return a piece of furniture with its things, or `(closed)`."""
    if name in CONTAINERS and name not in house.open:
        return f"{name} (closed)"
    return f"{name} ({describe_things(house.held_by(name))})"


def describe_things(things: Sequence[str]) -> str:
    """Return the names of things, or "empty"."""
    return ", ".join(things) or "empty"


def describe_effect(house: House, command: Command) -> str:
    """Return the text for a command that was done, other than `go`."""
    verb, what, *where = command
    if verb == "open" and what != DOOR:
        return f"You open the {what}: {describe_things(house.held_by(what))}."
    if where:
        return f"You put the {what} {preposition(where[0])} the {where[0]}."
    return f"You {verb} the {what}."


def describe_refusal(house: House, command: Command) -> str:
    """Return why a command is not possible now, as far as the player can see."""
    verb, what, *where = command
    if verb == "go":
        return SHUT if what in ROOMS[house.room] else NO_WAY
    if where and where[0] in house.furniture() and house.places.get(what) == CARRIED:
        return f"The {where[0]} is closed."
    return IMPOSSIBLE
