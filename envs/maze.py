"""Maze: reach the goal by moves in plain English, after LMRL-Gym's Maze (Abdulhai et al. 2023).

As in the original: the four moves, -1 a turn and 0 on the turn that reaches the goal, 100 turns, a fixed maze of 10 x
13 cells with a random start, and two observation modes: full (the positions of goal and player) and partial (only the
walls around the player, so that the policy must use the history). Different: the drawing of the maze, the wording, the
goal is given once instead of every turn, and the turn limit truncates the episode instead of terminating it.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, TypeAlias, get_args

from envs.base import INVALID_ACTION, PRIVILEGED, SUCCESS, TASK_ID, VALID_ACTIONS, EnvSpec, Info, Observation, Step
from envs.errors import EnvStateError
from envs.toolkit.argument_checks import check_one_of, refuse_options
from envs.toolkit.grids import MOVES, Cell, Grid, describe_place, describe_walls, draw_grid, grid_of_cells, read_move
from envs.toolkit.mixed_demonstrator import MixedDemonstrator

Observe: TypeAlias = Literal["full", "partial"]

DRAWING = (
    "#############",
    "#.###...###.#",
    "#.....#.....#",
    "#.###.#.###.#",
    "###...#...###",
    "#...#.#.#...#",
    "#.#.#...#.#.#",
    "#.#...#...#.#",
    "#.#.#.#.#.#.#",
    "#############",
)
"""The fixed maze. Its halves are equal except for the goal, so the walls around a cell do not identify the half."""
GOAL: Cell = (8, 7)

GOAL_TEXT = "Find the goal. Move up, down, left or right."
REACHED = "You reached the goal."
WALL = "You hit a wall."
INVALID = "Invalid action."

MAX_TURNS = 100
INVALID_REWARD_COMPAT = -4.0
LATTICE = (4, 6)
"""Rows and columns of nodes of a generated maze. Walls are as thick as corridors, so it has 9 x 13 cells."""
OPENNESS = 0.1
"""Share of the walls outside of the spanning tree that are removed in a generated maze; each makes a loop."""


@dataclass(frozen=True)
class Layout:
    """The maze, start and goal of an episode."""

    grid: Grid
    start: Cell
    goal: Cell


@cache
def fixed_grid() -> Grid:
    """Return the map of DRAWING."""
    return grid_of_cells({(r, c) for r, line in enumerate(DRAWING) for c, mark in enumerate(line) if mark == "."})


def draw_maze(rng: random.Random) -> Grid:
    """Draw a maze of corridors one cell wide between walls one cell thick."""
    lattice = draw_grid(rng, *LATTICE, openness=OPENNESS)
    cells: set[Cell] = set()
    for (row, column), ways in lattice.exits.items():
        cells.add((2 * row - 1, 2 * column - 1))
        cells.update((row + row_after - 1, column + column_after - 1) for row_after, column_after in ways.values())
    return grid_of_cells(cells)


def draw_layout(seed: int, *, seeded: bool) -> Layout:
    """Return the episode of a seed, which draws the start and, if `seeded`, also the maze and the goal."""
    rng = random.Random(seed)
    grid = draw_maze(rng) if seeded else fixed_grid()
    cells = sorted(grid.exits)
    goal = rng.choice(cells) if seeded else GOAL
    return Layout(grid, rng.choice([cell for cell in cells if cell != goal]), goal)


class Maze:
    """Reach the goal of a maze: -1 a turn, 0 on the turn that reaches it.

    observe: "full" gives the position of the goal once and the player's position every turn; "partial" gives only the
        walls around the player.
    seeded: draw maze and goal from the seed instead of using the fixed ones. The seed always draws the start.
    compat: use the original's reward of -4 for an action that cannot be parsed, instead of -1.

    A turn that changes nothing (a wall, an action that cannot be parsed) returns only the reason.
    """

    spec: EnvSpec = EnvSpec(
        id="maze",
        description="Find the goal of a maze that is described in words, fully or partially observed.",
        max_turns=MAX_TURNS,
        reward_range=(-float(MAX_TURNS), 0.0),
    )

    def __init__(self, *, observe: Observe = "full", seeded: bool = False, compat: bool = False) -> None:
        check_one_of(self.spec.id, "observe", observe, get_args(Observe))
        self.observe = observe
        self.seeded = seeded
        self._invalid_reward = INVALID_REWARD_COMPAT if compat else -1.0
        if compat:
            self.spec = replace(self.spec, reward_range=(MAX_TURNS * INVALID_REWARD_COMPAT, 0.0))
        self._layout: Layout | None = None
        self._position: Cell = (0, 0)

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[str, Info]:
        """Draw the episode of `seed`. Raises EnvArgumentError for any option, because there are none."""
        refuse_options(self.spec.id, options)
        self._layout = draw_layout(seed, seeded=self.seeded)
        self._position = self._layout.start
        look = self._look()
        if self.observe == "full":
            goal = describe_place(self._layout.goal)
            look = f"The goal is in {goal}. You are in {look[0].lower()}{look[1:]}"
        return f"{GOAL_TEXT} {look}", self._info(False) | {TASK_ID: f"seed-{seed}"}

    def step(self, action: str) -> Step:
        """Move one cell. An action that cannot be parsed costs the turn."""
        if self._layout is None:
            raise EnvStateError(f"step of {self.spec.id}: the episode has not begun: call reset first")
        direction = read_move(action)
        if direction is None:
            return INVALID, self._invalid_reward, False, False, self._info(False) | {INVALID_ACTION: True}
        after = self._layout.grid.exits[self._position].get(direction)
        if after is None:
            return WALL, -1.0, False, False, self._info(False)
        self._position = after
        if after == self._layout.goal:
            return REACHED, 0.0, True, False, self._info(True)
        return self._look(), -1.0, False, False, self._info(False)

    def restore(self, privileged: Mapping[str, Any]) -> Info:
        """Continue from a state of an earlier `info`, for `envs.exact_values`."""
        self._layout, self._position = privileged["layout"], privileged["position"]
        return self._info(False)

    def value_key(self, privileged: Mapping[str, Any]) -> Hashable:
        """Return maze, goal and position, which determine the value of a state."""
        return privileged["layout"].grid, privileged["layout"].goal, privileged["position"]

    def close(self) -> None:
        self._layout = None

    def _look(self) -> str:
        assert self._layout is not None
        walls = describe_walls(self._layout.grid.walls(self._position))
        return f"{describe_place(self._position).capitalize()}. {walls}" if self.observe == "full" else walls

    def _info(self, success: bool) -> Info:
        privileged = {"layout": self._layout, "position": self._position}
        return {SUCCESS: success, INVALID_ACTION: False, VALID_ACTIONS: list(MOVES), PRIVILEGED: privileged}


class MazeDemonstrator(MixedDemonstrator):
    """Plays `Maze`: a move on a shortest path with probability `skill`, else one of the four moves.

    It knows maze, goal and position in both observation modes.
    """

    def __init__(self, *, skill: float, observe: Observe = "full", seeded: bool = False, compat: bool = False) -> None:
        del observe, seeded, compat  # arguments of the environment; `info` holds the maze of each episode
        super().__init__(skill=skill)
        self._distances: dict[Cell, int] = {}

    def begin(self, observation: Observation, info: Mapping[str, Any], *, seed: int) -> None:
        super().begin(observation, info, seed=seed)
        self._distances = self.state["layout"].grid.distances(self.state["layout"].goal)

    def best_actions(self) -> list[str]:
        grid: Grid = self.state["layout"].grid
        return grid.moves_nearer(self.state["position"], self._distances)
