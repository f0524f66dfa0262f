"""Key and door: a small walled map, a key to fetch first, a locked door to open then.

The smallest task in which credit is delayed: every turn costs one, whatever it does, and what matters (the key) pays
off only turns later, at the door. A map is drawn for each seed, so it can't be learnt by heart.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from envs.base import INVALID_ACTION, PRIVILEGED, SUCCESS, TASK_ID, VALID_ACTIONS, EnvSpec, Info, Observation, Step
from envs.errors import EnvArgumentError, EnvStateError
from envs.toolkit.grids import MOVES, Cell, Grid, describe_place, describe_walls, draw_grid, read_move
from envs.toolkit.mixed_demonstrator import MixedDemonstrator

GOAL = "Find the key, then open the door. Move up, down, left or right."
FOUND = "You found the key."
OPENED = "You opened the door."
LOCKED = "The door is locked."
WALL = "You hit a wall."
INVALID = "Invalid action."

MAX_TURNS = 30
SIZES = range(2, 10)
OPENNESS = 0.5
"""Share of the walls left out that only lengthen the way: at 4 x 4, four or five inner walls of 24 places stand."""


@dataclass(frozen=True)
class Layout:
    """What the seed draws. The key can be reached from the start without passing the door."""

    grid: Grid
    start: Cell
    key: Cell
    door: Cell


def draw_layout(seed: int, size: int) -> Layout:
    """The map of a seed: `size` x `size` cells with start, key and door in three of them."""
    rng = random.Random(seed)
    grid = draw_grid(rng, size, size, openness=OPENNESS)
    cells = rng.sample(sorted(grid.exits), size * size)
    start, doors = cells[0], cells[1:]
    for door in doors:
        reached = grid.distances(start, closed=[door])
        keys = [cell for cell in cells if cell in reached and cell != start]
        if keys:
            return Layout(grid, start, keys[0], door)
    raise AssertionError("a connected map of four cells or more has a door that leaves a cell to reach")


class KeyDoor:
    """Find the key, then open the locked door, on a `size` x `size` map drawn from the seed.

    -1 a turn, but +1 on the turn that opens the door: the return of a shortest way of n turns is 2 - n. Entering the
    key's cell takes the key. Entering the door's cell opens the door with the key; without it the door is a wall. The
    first observation gives key, door and own position; walls are told of the own cell only. A turn that changes nothing
    (a wall, the locked door, an action that isn't understood) is answered by that alone.

    maps: so many maps take turns (seed modulo maps), which can be learnt by heart; None draws one for each seed, where
        the policy must find its way on a map that it never saw.
    """

    spec: ClassVar[EnvSpec] = EnvSpec(
        id="key_door",
        description="Fetch a key and open a locked door on a small walled map.",
        max_turns=MAX_TURNS,
        reward_range=(-float(MAX_TURNS), 0.0),
    )

    def __init__(self, *, size: int = 4, maps: int | None = None) -> None:
        if size not in SIZES:
            raise EnvArgumentError(f"{self.spec.id}: size is {size}, must be from {SIZES[0]} to {SIZES[-1]}")
        if maps is not None and maps < 1:
            raise EnvArgumentError(f"{self.spec.id}: maps is {maps}, must be at least 1, or null for one to each seed")
        self.size = size
        self.maps = maps
        self._layout: Layout | None = None
        self._position: Cell = (0, 0)
        self._has_key = False

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[str, Info]:
        """Draw the map of `seed`. There are no reset options: any raises EnvArgumentError."""
        if options:
            raise EnvArgumentError(f"{self.spec.id}: unknown reset options {sorted(options)}: there are none")
        number = seed if self.maps is None else seed % self.maps
        self._layout = draw_layout(number, self.size)
        self._position = self._layout.start
        self._has_key = False
        key, door, look = describe_place(self._layout.key), describe_place(self._layout.door), self._look()
        return f"{GOAL} Key in {key}. Door in {door}. You are in {look[0].lower()}{look[1:]}", self._info() | {
            TASK_ID: f"map-{number}"
        }

    def step(self, action: str) -> Step:
        """Move one cell. Any string is an action; what isn't understood is answered so."""
        if self._layout is None:
            raise EnvStateError(f"step of {self.spec.id}: the episode has not begun: call reset first")
        direction = read_move(action)
        if direction is None:
            return INVALID, -1.0, False, False, self._info() | {INVALID_ACTION: True}
        after = self._layout.grid.exits[self._position].get(direction)
        if after is None:
            return WALL, -1.0, False, False, self._info()
        if after == self._layout.door:
            if not self._has_key:
                return LOCKED, -1.0, False, False, self._info()
            self._position = after
            return OPENED, 1.0, True, False, self._info() | {SUCCESS: True}
        self._position = after
        found = after == self._layout.key and not self._has_key
        self._has_key = self._has_key or found
        return f"{FOUND} {self._look()}" if found else self._look(), -1.0, False, False, self._info()

    def close(self) -> None:
        self._layout = None

    def _look(self) -> str:
        assert self._layout is not None
        return (
            f"{describe_place(self._position).capitalize()}. {describe_walls(self._layout.grid.walls(self._position))}"
        )

    def _info(self) -> Info:
        privileged = {"layout": self._layout, "position": self._position, "has_key": self._has_key}
        return {SUCCESS: False, INVALID_ACTION: False, VALID_ACTIONS: list(MOVES), PRIVILEGED: privileged}


class KeyDoorDemonstrator(MixedDemonstrator):
    """Plays `KeyDoor`: with probability `skill` a turn the shortest way on, else any of the four moves.

    It knows the whole map, which the policy must find out.
    """

    def __init__(self, *, skill: float, size: int = 4, maps: int | None = None) -> None:
        del size, maps  # It takes what the environment takes, and reads the map of each episode.
        super().__init__(skill=skill)
        self._distances: tuple[dict[Cell, int], dict[Cell, int]] = ({}, {})

    def begin(self, observation: Observation, info: Mapping[str, Any], *, seed: int) -> None:
        super().begin(observation, info, seed=seed)
        layout: Layout = self.state["layout"]
        self._distances = (layout.grid.distances(layout.key, closed=[layout.door]), layout.grid.distances(layout.door))

    def best_actions(self) -> list[str]:
        grid: Grid = self.state["layout"].grid
        return grid.moves_nearer(self.state["position"], self._distances[self.state["has_key"]])
