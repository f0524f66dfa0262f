"""Maps of cells with walls, for grid worlds that are described in words.

A cell is (row, column), counted from 1 at the upper left, as observations print it.
"""

from __future__ import annotations

import random
import re
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass

Cell = tuple[int, int]

DIRECTIONS: Mapping[str, tuple[int, int]] = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
MOVES = tuple(f"move {direction}" for direction in DIRECTIONS)

MAX_LENGTH = 50
"""Longer actions are refused, in characters."""

_MOVE = re.compile(r"(?:(?:move|go|walk|step) )?(up|down|left|right)")


def read_move(action: str) -> str | None:
    """Return the direction that an action names, or None if it names none."""
    if len(action) > MAX_LENGTH:
        return None
    match = _MOVE.fullmatch(" ".join(action.lower().split()).rstrip(" .!"))
    return match[1] if match else None


@dataclass(frozen=True)
class Grid:
    """Cells and the open ways between them.

    exits: cell -> direction -> neighbour. A direction that is missing is a wall. Ways are symmetric.
    """

    exits: Mapping[Cell, Mapping[str, Cell]]

    def __hash__(self) -> int:
        return hash(frozenset((cell, *ways) for cell, ways in self.exits.items()))

    def walls(self, cell: Cell) -> tuple[str, ...]:
        """Return the directions that are walls at `cell`, in the order of DIRECTIONS."""
        return tuple(direction for direction in DIRECTIONS if direction not in self.exits[cell])

    def distances(self, goal: Cell, *, closed: Collection[Cell] = ()) -> dict[Cell, int]:
        """Return the turns to `goal` from each cell that can reach it on a path that enters no cell of `closed`."""
        found = {goal: 0}
        queue = deque([goal])
        while queue:
            cell = queue.popleft()
            for after in self.exits[cell].values():
                if after not in found and after not in closed:
                    found[after] = found[cell] + 1
                    queue.append(after)
        return found

    def moves_nearer(self, cell: Cell, distances: Mapping[Cell, int]) -> list[str]:
        """Return the actions at `cell` that reduce the distance in `distances`."""
        here = distances[cell]
        return [f"move {way}" for way, after in self.exits[cell].items() if distances.get(after, here) < here]


def grid_of_cells(cells: Collection[Cell]) -> Grid:
    """Return the map in which neighbouring cells of `cells` are connected and all other cells are walls."""
    exits: dict[Cell, dict[str, Cell]] = {cell: {} for cell in cells}
    for (row, column), ways in exits.items():
        for direction, (down, right) in DIRECTIONS.items():
            if (after := (row + down, column + right)) in exits:
                ways[direction] = after
    return Grid(exits)


def draw_grid(rng: random.Random, rows: int, columns: int, *, openness: float) -> Grid:
    """Draw a map of `rows` x `columns` cells with thin walls, in which every cell can be reached.

    openness: probability that a wall outside of the spanning tree is removed. 0 gives a maze with one path between any
        two cells, 1 a map without inner walls.
    """
    full = grid_of_cells([(row, column) for row in range(1, rows + 1) for column in range(1, columns + 1)])
    open_pairs = _draw_tree(rng, full)
    for cell, ways in full.exits.items():
        for after in ways.values():
            if cell < after and rng.random() < openness:
                open_pairs.add(frozenset((cell, after)))
    return Grid(
        {
            cell: {direction: after for direction, after in ways.items() if frozenset((cell, after)) in open_pairs}
            for cell, ways in full.exits.items()
        }
    )


def _draw_tree(rng: random.Random, grid: Grid) -> set[frozenset[Cell]]:
    """Draw a spanning tree by random depth-first search; return it as pairs of neighbours."""
    path = [rng.choice(sorted(grid.exits))]
    seen = set(path)
    pairs: set[frozenset[Cell]] = set()
    while path:
        fresh = [after for after in grid.exits[path[-1]].values() if after not in seen]
        if not fresh:
            path.pop()
            continue
        after = rng.choice(fresh)
        pairs.add(frozenset((path[-1], after)))
        seen.add(after)
        path.append(after)
    return pairs


def describe_walls(walls: Collection[str]) -> str:
    """Return a sentence that names the directions that are walls."""
    return f"Walls {', '.join(walls)}." if walls else "No walls."


def describe_place(cell: Cell) -> str:
    """Return the words for the position of a cell."""
    return f"row {cell[0]} column {cell[1]}"
