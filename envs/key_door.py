"""Key and door: fetch a key on a small map with walls, then open a locked door.

This is the smallest task with delayed credit: every turn costs one, and fetching the key pays off only turns later, at
the door. Each seed draws a map of its own, so a policy cannot memorize the map.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from envs.base import INVALID_ACTION, PRIVILEGED, SUCCESS, TASK_ID, VALID_ACTIONS, EnvSpec, Info, Observation, Step
from envs.errors import EnvArgumentError, EnvStateError
from envs.toolkit.argument_checks import check_count, refuse_options
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
"""Share of the walls outside of the spanning tree that are removed. At 4 x 4, four or five of 24 inner walls remain."""


@dataclass(frozen=True)
class Layout:
    """The map of a seed. The key can be reached from the start without passing the door."""

    grid: Grid
    start: Cell
    key: Cell
    door: Cell


def draw_layout(seed: int, size: int) -> Layout:
    """Return the map of a seed: `size` x `size` cells with start, key and door in three of them."""
    rng = random.Random(seed)
    grid = draw_grid(rng, size, size, openness=OPENNESS)
    cells = rng.sample(sorted(grid.exits), size * size)
    start, doors = cells[0], cells[1:]
    for door in doors:
        reached = grid.distances(start, closed=[door])
        keys = [cell for cell in cells if cell in reached and cell != start]
        if keys:
            return Layout(grid, start, keys[0], door)
    raise AssertionError("every connected map of four or more cells has a cell for the door")


class KeyDoor:
    """Find the key, then open the locked door, on a `size` x `size` map drawn from the seed.

    The reward is -1 a turn and +1 on the turn that opens the door, so the return of a shortest path of n turns is 2 -
    n. Entering the cell of the key takes it. Entering the cell of the door opens it if the player has the key;
    otherwise the door is a wall. The first observation gives the positions of key, door and player; observations
    describe the walls of the player's cell only. A turn that changes nothing returns only the reason (a wall, the
    locked door, an action that cannot be parsed).

    maps: number of distinct maps (seed modulo maps), which a policy can memorize. None draws one map per seed, so the
        policy must find its way on a map that it has not seen.
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
        check_count(self.spec.id, "maps", maps)
        self.size = size
        self.maps = maps
        self._layout: Layout | None = None
        self._position: Cell = (0, 0)
        self._has_key = False

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[str, Info]:
        """Draw the map of `seed`. Raises EnvArgumentError for any option, because there are none."""
        refuse_options(self.spec.id, options)
        number = seed if self.maps is None else seed % self.maps
        self._layout = draw_layout(number, self.size)
        self._position = self._layout.start
        self._has_key = False
        key, door, look = describe_place(self._layout.key), describe_place(self._layout.door), self._look()
        return f"{GOAL} Key in {key}. Door in {door}. You are in {look[0].lower()}{look[1:]}", self._info() | {
            TASK_ID: f"map-{number}"
        }

    def step(self, action: str) -> Step:
        """Move one cell. An action that cannot be parsed costs the turn."""
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

    def restore(self, privileged: Mapping[str, Any]) -> Info:
        """Continue from a state of an earlier `info`, for `envs.exact_values`."""
        self._layout, self._position = privileged["layout"], privileged["position"]
        self._has_key = privileged["has_key"]
        return self._info()

    def value_key(self, privileged: Mapping[str, Any]) -> Hashable:
        """Return map, position and whether the player has the key, which determine the value of a state."""
        return privileged["layout"], privileged["position"], privileged["has_key"]

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
    """Plays `KeyDoor`: a move on a shortest path with probability `skill`, else one of the four moves.

    It knows the whole map, which the policy cannot see.
    """

    def __init__(self, *, skill: float, size: int = 4, maps: int | None = None) -> None:
        del size, maps  # arguments of the environment; `info` holds the map of each episode
        super().__init__(skill=skill)
        self._distances: tuple[dict[Cell, int], dict[Cell, int]] = ({}, {})

    def begin(self, observation: Observation, info: Mapping[str, Any], *, seed: int) -> None:
        super().begin(observation, info, seed=seed)
        layout: Layout = self.state["layout"]
        self._distances = (layout.grid.distances(layout.key, closed=[layout.door]), layout.grid.distances(layout.door))

    def best_actions(self) -> list[str]:
        grid: Grid = self.state["layout"].grid
        return grid.moves_nearer(self.state["position"], self._distances[self.state["has_key"]])
