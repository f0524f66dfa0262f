"""The house: rooms, doors, furniture and things, and the rules of commands.

garden | kitchen --- dining room
            |             |
          hall ----- living room | study          | is a door
            |
         bedroom | bathroom
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

Command = tuple[str, ...]
"""A verb and its objects: ("go", direction), ("take", thing), ("eat", thing), ("put", thing, furniture), ("open", what)
and ("close", what), where `what` is a container or DOOR. No room has more than one door.
"""

DIRECTIONS = ("north", "east", "south", "west")
DOOR = "door"
CARRIED = "carried"
EATEN = "eaten"

ROOMS: Mapping[str, Mapping[str, str]] = {
    "garden": {"east": "kitchen"},
    "kitchen": {"west": "garden", "east": "dining room", "south": "hall"},
    "dining room": {"west": "kitchen", "south": "living room"},
    "hall": {"north": "kitchen", "east": "living room", "south": "bedroom"},
    "living room": {"north": "dining room", "west": "hall", "east": "study"},
    "study": {"west": "living room"},
    "bedroom": {"north": "hall", "east": "bathroom"},
    "bathroom": {"west": "bedroom"},
}
"""Room -> direction -> the neighbouring room."""
DOORS = (
    frozenset({"garden", "kitchen"}),
    frozenset({"living room", "study"}),
    frozenset({"bedroom", "bathroom"}),
)
"""Pairs of rooms with a door between them. Each door leads to a dead end, so a closed door never hides a
shorter path.
"""

CONTAINERS: Mapping[str, str] = {
    "fridge": "kitchen",
    "chest": "living room",
    "wardrobe": "bedroom",
    "cabinet": "bathroom",
    "safe": "study",
}
"""Furniture that opens and closes -> its room."""
SUPPORTERS: Mapping[str, str] = {
    "counter": "kitchen",
    "table": "dining room",
    "sofa": "living room",
    "bed": "bedroom",
    "desk": "study",
    "bench": "garden",
    "shelf": "hall",
}
"""Furniture that carries things -> its room."""
FURNITURE: Mapping[str, str] = {**CONTAINERS, **SUPPORTERS}

FOOD = ("apple", "bread", "cheese")
THINGS = (*FOOD, "ball", "book", "cup", "hat", "key", "lamp", "towel")
THINGS_AT_ONCE = 6


@dataclass
class House:
    """The state of a house, and its task: put `thing` into `container` and close the container.

    open: open containers, by name, and open doors, as pairs of rooms.
    places: thing -> the furniture that holds it, CARRIED or EATEN.
    """

    room: str
    thing: str
    container: str
    places: dict[str, str]
    open: set[str | frozenset[str]] = field(default_factory=set)

    @property
    def solved(self) -> bool:
        return self.places[self.thing] == self.container and self.container not in self.open

    @property
    def lost(self) -> bool:
        """Whether the task can no longer be solved."""
        return self.places[self.thing] == EATEN

    def copy(self) -> House:
        return replace(self, places=dict(self.places), open=set(self.open))

    def held_by(self, place: str) -> list[str]:
        """Return the things in or on a piece of furniture, or carried."""
        return [thing for thing in THINGS if self.places.get(thing) == place]

    def furniture(self) -> list[str]:
        """Return the furniture of the current room."""
        return [name for name, room in FURNITURE.items() if room == self.room]

    def at_hand(self) -> list[str]:
        """Return the furniture of the current room that is accessible: all except closed containers."""
        return [name for name in self.furniture() if name not in CONTAINERS or name in self.open]

    def within_reach(self) -> list[str]:
        """Return the things in the current room that can be seen and taken."""
        return [thing for name in self.at_hand() for thing in self.held_by(name)]

    def door(self) -> frozenset[str] | None:
        """Return the door of the current room, or None."""
        return next((door for door in DOORS if self.room in door), None)

    def is_shut(self, direction: str) -> bool:
        """Return whether the exit in a direction, which must exist, is a closed door."""
        way = frozenset({self.room, ROOMS[self.room][direction]})
        return way in DOORS and way not in self.open

    def possible(self) -> list[Command]:
        """Return all commands that are possible now."""
        found: list[Command] = [("go", way) for way in DIRECTIONS if way in ROOMS[self.room] and not self.is_shut(way)]
        door = self.door()
        if door is not None:
            found.append(("close" if door in self.open else "open", DOOR))
        for name in self.furniture():
            if name in CONTAINERS:
                found.append(("close" if name in self.open else "open", name))
        seen, carried = self.within_reach(), self.held_by(CARRIED)
        found += [("take", thing) for thing in seen]
        found += [("put", thing, name) for thing in carried for name in self.at_hand()]
        found += [("eat", thing) for thing in [*seen, *carried] if thing in FOOD]
        return found

    def do(self, command: Command) -> None:
        """Do a command that is possible now."""
        verb, what, *where = command
        if verb == "go":
            self.room = ROOMS[self.room][what]
        elif verb == "take":
            self.places[what] = CARRIED
        elif verb == "put":
            self.places[what] = where[0]
        elif verb == "eat":
            self.places[what] = EATEN
        else:
            opening = self.door() if what == DOOR else what
            assert opening is not None, f"{command} is not possible in the {self.room}"
            (self.open.add if verb == "open" else self.open.discard)(opening)


def draw_house(seed: int) -> House:
    """Return the house and task of a seed: places of things, state of doors, thing and container of the task, and
    start.

    All containers begin closed, and half of the doors.
    """
    rng = random.Random(seed)
    things = rng.sample(THINGS, THINGS_AT_ONCE)
    places = {thing: rng.choice(list(FURNITURE)) for thing in things}
    thing = things[0]
    container = rng.choice([name for name in CONTAINERS if name != places[thing]])
    doors: set[str | frozenset[str]] = {door for door in DOORS if rng.random() < 0.5}
    return House(rng.choice(list(ROOMS)), thing, container, places, doors)


def way_to(room: str, goal: str) -> str:
    """Return the direction of a shortest path from `room` to another room; closed doors count as open."""
    before: dict[str, tuple[str, str]] = {}
    queue = deque([goal])
    while room not in before:
        there = queue.popleft()
        for here, exits in ROOMS.items():
            for direction, leads_to in exits.items():
                if leads_to == there and here not in before and here != goal:
                    before[here] = (direction, there)
                    queue.append(here)
    return before[room][0]
