"""The village and the caves under it: rooms, things, and the rules of commands.

        cliff - [tower]      | up: lantern room       cellar, below the inn
          |                                             |
graveyard - market                                    tunnel - grotto - (vault)
  |          |
church - square - inn        | down: cellar           [ ] locked   ( ) shut by three levers
          |
        harbour - beach - boathouse

The seed rotates or mirrors the plan, so that a policy must read the exits. It also draws the places of things, the
person and their wish, and the order of levers that opens the vault.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

Command = tuple[str, ...]
"""A verb and its object: ("go", direction), ("take", thing), ("drop", thing), ("light", thing), ("give", thing),
("pull", colour), ("talk",), ("unlock",), ("read",).
"""

DIRECTIONS = ("north", "east", "south", "west", "up", "down")
CARRIED, GONE = "carried", "gone"

_PLACES: Mapping[str, tuple[int, int, int]] = {
    "harbour": (0, 0, 0),
    "beach": (1, 0, 0),
    "boathouse": (2, 0, 0),
    "square": (0, 1, 0),
    "inn": (1, 1, 0),
    "church": (-1, 1, 0),
    "graveyard": (-1, 2, 0),
    "market": (0, 2, 0),
    "cliff": (0, 3, 0),
    "tower": (1, 3, 0),
    "lantern room": (1, 3, 1),
    "cellar": (1, 1, -1),
    "tunnel": (1, 0, -1),
    "grotto": (2, 0, -1),
    "vault": (3, 0, -1),
}
_WAYS = (
    ("harbour", "beach"),
    ("beach", "boathouse"),
    ("harbour", "square"),
    ("square", "inn"),
    ("square", "church"),
    ("church", "graveyard"),
    ("graveyard", "market"),
    ("square", "market"),
    ("market", "cliff"),
    ("cliff", "tower"),
    ("tower", "lantern room"),
    ("inn", "cellar"),
    ("cellar", "tunnel"),
    ("tunnel", "grotto"),
    ("grotto", "vault"),
)
ROOMS = tuple(_PLACES)
START = "harbour"
DARK = frozenset({"cellar", "tunnel", "grotto", "vault"})
SPOTS = ("beach", "boathouse", "square", "church", "graveyard", "market")
"""Rooms where things can be at the start."""

LIGHTS = ("lamp", "lantern", "torch")
WISHES = ("pipe", "bottle", "hat", "letter", "fish", "ring", "net", "flute")
TREASURES = ("crown", "pearl", "mask", "sword", "cup")
COLOURS = ("red", "blue", "green", "white", "black")
PEOPLE = ("Marta", "Edvard", "Ines", "Tomas", "Ruth", "Anselm")
KEY = "key"
WRONG_PULLS = 3
"""Number of wrong levers that brings the roof down."""

POINTS: Mapping[str, int] = {
    **dict.fromkeys(("beach", "boathouse", "square", "inn", "church", "graveyard", "market", "cliff"), 5),
    **dict.fromkeys(("tower", "lantern room", "cellar", "tunnel", "grotto"), 15),
    "vault": 25,
    "take light": 15,
    "take wish": 15,
    "talk": 10,
    "give": 20,
    "unlock": 20,
    "read": 20,
    "light": 10,
    **dict.fromkeys(("lever 1", "lever 2", "lever 3"), 10),
    "treasure": 70,
}
"""Points for doing or entering something for the first time; 350 in all."""


@dataclass
class World:
    """The state of a village.

    ways: room -> direction -> room, closed ways included.
    light, wish, treasure, person: names of this village's lamp, of the thing that the person wants, and so on.
    levers: colours of the three levers, in the order that opens the vault.
    places: thing -> its room, CARRIED or GONE.
    done: keys of POINTS that have been paid.
    """

    ways: Mapping[str, Mapping[str, str]]
    light: str
    wish: str
    treasure: str
    person: str
    levers: tuple[str, ...]
    places: dict[str, str]
    room: str = START
    done: set[str] = field(default_factory=set)
    lit: bool = False
    unlocked: bool = False
    pulled: int = 0
    wrong: int = 0
    dead: bool = False

    @property
    def won(self) -> bool:
        return self.places[self.treasure] == CARRIED

    @property
    def dark(self) -> bool:
        """Whether the room is dark and the player has no light in it."""
        return self.room in DARK and not (self.lit and self.places[self.light] in (CARRIED, self.room))

    def copy(self) -> World:
        return replace(self, places=dict(self.places), done=set(self.done))

    def at(self, place: str) -> list[str]:
        """Return the things in a room, or carried."""
        return [thing for thing, where in self.places.items() if where == place]

    def is_shut(self, room: str) -> bool:
        """Return whether `room`, which has one entrance, is locked or closed."""
        return (room == "tower" and not self.unlocked) or (room == "vault" and self.pulled < len(self.levers))

    def possible(self) -> list[Command]:
        """Return all commands that are possible now. In the dark these are `go`, and `light` for a carried light."""
        found: list[Command] = [("go", way) for way, room in self.ways[self.room].items() if not self.is_shut(room)]
        carried = self.at(CARRIED)
        if self.light in carried and not self.lit:
            found.append(("light", self.light))
        if self.dark:
            return found
        found += [("take", thing) for thing in self.at(self.room)]
        found += [("drop", thing) for thing in carried]
        if self.room == "inn":
            found += [("talk",), *(("give", thing) for thing in carried)]
        elif self.room == "cliff" and KEY in carried and not self.unlocked:
            found.append(("unlock",))
        elif self.room == "lantern room":
            found.append(("read",))
        elif self.room == "grotto" and self.pulled < len(self.levers):
            found += [("pull", colour) for colour in sorted(self.levers)]
        return found

    def do(self, command: Command) -> int:
        """Do a command that is possible now; return the points that it gains."""
        verb, what = command[0], command[-1]
        if verb == "go":
            return self._go(self.ways[self.room][what])
        if verb == "pull":
            return self._pull(what)
        if verb == "take":
            self.places[what] = CARRIED
            named = {self.light: "take light", self.wish: "take wish", self.treasure: "treasure"}
            return self._pay(named.get(what, ""))
        if verb == "drop":
            self.places[what] = self.room
        elif verb == "light":
            self.lit = True
        elif verb == "unlock":
            self.unlocked = True
        elif verb == "give":
            if what != self.wish:
                return 0
            self.places[what] = GONE
            self.places[KEY] = CARRIED
        return self._pay(verb)

    def _go(self, room: str) -> int:
        if self.dark and room != "inn":
            self.dead = True
            return 0
        self.room = room
        return self._pay(room)

    def _pull(self, colour: str) -> int:
        if colour != self.levers[self.pulled]:
            self.pulled = 0
            self.wrong += 1
            self.dead = self.wrong == WRONG_PULLS
            return 0
        self.pulled += 1
        return self._pay(f"lever {self.pulled}")

    def _pay(self, event: str) -> int:
        if event in self.done or event not in POINTS:
            return 0
        self.done.add(event)
        return POINTS[event]


def draw_world(seed: int) -> World:
    """Return the village of a seed."""
    rng = random.Random(seed)
    light, treasure = rng.choice(LIGHTS), rng.choice(TREASURES)
    wishes = rng.sample(WISHES, 4)
    lying = [light, *wishes]
    places = dict(zip(lying, rng.sample(SPOTS, len(lying)), strict=True))
    return World(
        ways=_turned(quarter_turns=rng.randrange(4), mirrored=rng.random() < 0.5),
        light=light,
        wish=wishes[0],
        treasure=treasure,
        person=rng.choice(PEOPLE),
        levers=tuple(rng.sample(COLOURS, 3)),
        # Sorted by name, so that the order does not reveal the wish.
        places={thing: places[thing] for thing in sorted(places)} | {KEY: GONE, treasure: "vault"},
    )


def _turned(*, quarter_turns: int, mirrored: bool) -> dict[str, dict[str, str]]:
    """Return the ways of the plan, rotated and, if `mirrored`, mirrored."""
    ways: dict[str, dict[str, str]] = {room: {} for room in ROOMS}
    for here, there in _WAYS:
        for one, other in ((here, there), (there, here)):
            x, y, z = (b - a for a, b in zip(_PLACES[one], _PLACES[other], strict=True))
            if mirrored:
                x = -x
            for _ in range(quarter_turns):
                x, y = y, -x
            ways[one][_name(x, y, z)] = other
    # In the order of DIRECTIONS, which does not depend on the plan.
    return {room: {way: exits[way] for way in DIRECTIONS if way in exits} for room, exits in ways.items()}


def _name(x: int, y: int, z: int) -> str:
    if z:
        return "up" if z > 0 else "down"
    if y:
        return "north" if y > 0 else "south"
    return "east" if x > 0 else "west"
