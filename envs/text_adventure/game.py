"""The environment `TextAdventure`: a small adventure with points for progress, 350 in all, in 50 turns, as in
Detective.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from envs.base import INVALID_ACTION, PRIVILEGED, SUCCESS, TASK_ID, VALID_ACTIONS, EnvSpec, Info, Step
from envs.errors import EnvStateError
from envs.text_adventure.commands import read_command, write_command
from envs.text_adventure.texts import INVALID, describe, describe_effect, describe_no_effect
from envs.text_adventure.world import POINTS, World, draw_world
from envs.toolkit.argument_checks import check_count, refuse_options

MAX_TURNS = 50
VERBS = "You can go, look, take, drop, give, talk, read, unlock, light and pull."


class TextAdventure:
    """Find the treasure under a village. The reward is the points gained in the turn, 350 in all.

    worlds: number of distinct villages (seed modulo worlds). None draws one village per seed, so a policy cannot
        memorize it.

    Moving on in the dark or pulling a third wrong lever ends the episode: terminated, without success.
    """

    spec: ClassVar[EnvSpec] = EnvSpec(
        id="text_adventure",
        description="Find the treasure under a village: a small adventure with points on the way.",
        max_turns=MAX_TURNS,
        reward_range=(0.0, float(sum(POINTS.values()))),
    )

    def __init__(self, *, worlds: int | None = None) -> None:
        check_count(self.spec.id, "worlds", worlds)
        self.worlds = worlds
        self._world: World | None = None

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[str, Info]:
        """Begin in the village of `seed`. Raises EnvArgumentError for any option, because there are none."""
        refuse_options(self.spec.id, options)
        village = seed if self.worlds is None else seed % self.worlds
        world = self._world = draw_world(village)
        task = f"Somewhere under this village lies a {world.treasure}. Find it. {VERBS}"
        return f"{task} {describe(world)}", self._info(world) | {TASK_ID: f"village-{village}"}

    def step(self, action: str) -> Step:
        """Do one command. An action that cannot be parsed, or a command that is not possible now, costs the turn."""
        world = self._world
        if world is None:
            raise EnvStateError(f"step of {self.spec.id}: the episode has not begun: call reset first")
        command = read_command(action)
        if command is None:
            return INVALID, 0.0, False, False, self._info(world) | {INVALID_ACTION: True}
        if command not in world.possible():
            return describe_no_effect(world, command), 0.0, False, False, self._info(world)
        points = world.do(command)
        return describe_effect(world, command, points), float(points), world.won or world.dead, False, self._info(world)

    def close(self) -> None:
        self._world = None

    def _info(self, world: World) -> Info:
        return {
            SUCCESS: world.won,
            INVALID_ACTION: False,
            VALID_ACTIONS: [write_command(command, world.person) for command in world.possible()],
            PRIVILEGED: {"world": world.copy()},
        }
