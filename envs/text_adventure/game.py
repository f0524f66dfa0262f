"""A small adventure with points for progress at many places, on the scale of Detective: 350 in all, 50 turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from envs.base import INVALID_ACTION, PRIVILEGED, SUCCESS, TASK_ID, VALID_ACTIONS, EnvSpec, Info, Step
from envs.errors import EnvArgumentError, EnvStateError
from envs.text_adventure.commands import read_command, write_command
from envs.text_adventure.texts import INVALID, answer, describe, tell
from envs.text_adventure.world import POINTS, World, draw_world

MAX_TURNS = 50
VERBS = "You can go, look, take, drop, give, talk, read, unlock, light and pull."


class TextAdventure:
    """Find the treasure under a village: the points gained each turn, 350 in all.

    worlds: how many villages there are; a seed plays village `seed % worlds`. None: each seed has its own, so that
        none can be learnt by heart.

    To walk on in the dark or pull the third wrong lever is death: the episode ends, `terminated` and without success.
    """

    spec: ClassVar[EnvSpec] = EnvSpec(
        id="text_adventure",
        description="Find the treasure under a village: a small adventure with points on the way.",
        max_turns=MAX_TURNS,
        reward_range=(0.0, float(sum(POINTS.values()))),
    )

    def __init__(self, *, worlds: int | None = None) -> None:
        if worlds is not None and worlds < 1:
            raise EnvArgumentError(f"{self.spec.id}: worlds is {worlds}, must be at least 1, or none for one a seed")
        self.worlds = worlds
        self._world: World | None = None

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[str, Info]:
        """Begin in the village of `seed`. There are no reset options: any raises EnvArgumentError."""
        if options:
            raise EnvArgumentError(f"{self.spec.id}: unknown reset options {sorted(options)}: there are none")
        village = seed if self.worlds is None else seed % self.worlds
        world = self._world = draw_world(village)
        task = f"Somewhere under this village lies a {world.treasure}. Find it. {VERBS}"
        return f"{task} {describe(world)}", self._info(world) | {TASK_ID: f"village-{village}"}

    def step(self, action: str) -> Step:
        """Do one thing. Any string is an action; what isn't understood is answered so."""
        world = self._world
        if world is None:
            raise EnvStateError(f"step of {self.spec.id}: the episode has not begun: call reset first")
        command = read_command(action)
        if command is None:
            return INVALID, 0.0, False, False, self._info(world) | {INVALID_ACTION: True}
        if command not in world.possible():
            return answer(world, command), 0.0, False, False, self._info(world)
        points = world.do(command)
        return tell(world, command, points), float(points), world.won or world.dead, False, self._info(world)

    def close(self) -> None:
        self._world = None

    def _info(self, world: World) -> Info:
        return {
            SUCCESS: world.won,
            INVALID_ACTION: False,
            VALID_ACTIONS: [write_command(command, world.person) for command in world.possible()],
            PRIVILEGED: {"world": world.copy()},
        }
