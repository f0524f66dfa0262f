"""The environment `Detective`: Matt Barringer's game of 1993, ported to Inform by Stuart Moore in 2000, run by jericho.

Two faults of the usual setup are corrected. The ten points that the game awards before the first command are not paid,
so a return is at most 350. Debugging verbs are refused (`envs.toolkit.inform_commands`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from envs.base import INVALID_ACTION, PRIVILEGED, SUCCESS, TASK_ID, VALID_ACTIONS, EnvSpec, Info, Step
from envs.detective.story_file import check_story
from envs.detective.valid_actions import ValidActions
from envs.errors import EnvStateError
from envs.toolkit.argument_checks import refuse_options
from envs.toolkit.inform_commands import is_understood, read_command, tidy

if TYPE_CHECKING:
    from jericho import FrotzEnv

MAX_TURNS = 50
BEST = 350.0
CLOSED = "You can't do that in this game: one plain command a turn."


class Detective:
    """Solve the murder of the mayor. The reward is the score gained in the turn, 350 in all.

    story: path of the story file of the game, which the user provides.
    valid_actions: whether `info` holds the valid actions. Finding them takes some hundred milliseconds in each new
        state of the world. The policy does not see them.

    Deaths and the solution are terminated. The environment runs in a child process, and a watchdog truncates an episode
    that hangs.
    """

    spec: ClassVar[EnvSpec] = EnvSpec(
        id="detective",
        description="Solve the mayor's murder: the real game, from a story file of your own.",
        max_turns=MAX_TURNS,
        reward_range=(0.0, BEST),
        isolation="process",
        extra="jericho",
    )

    def __init__(self, *, story: str | None = None, valid_actions: bool = True) -> None:
        self.check_arguments(story=story)
        assert story is not None, "checked above"
        from jericho import (
            FrotzEnv,  # imported here, so that only the child process loads GPL code and a shared library
        )

        self._frotz: FrotzEnv | None = FrotzEnv(str(Path(story).expanduser()))
        self._valid = ValidActions(self._frotz) if valid_actions else None
        self._route = find_route(self._frotz)
        self._running = False

    @classmethod
    def check_arguments(cls, *, story: str | None = None, valid_actions: bool = True) -> None:
        """Raise EnvArgumentError if `story` is not the story file of the game, before a child process starts."""
        del valid_actions
        check_story(cls.spec.id, story)

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[str, Info]:
        """Begin an episode with the interpreter's random numbers seeded. Raises EnvArgumentError for any option."""
        refuse_options(self.spec.id, options)
        frotz = self._interpreter("reset")
        # The interpreter takes 32 bits; 0 means a seed from the clock.
        frotz.seed(1 + seed % (2**31 - 2))
        text, _ = frotz.reset()
        self._running = True
        return tidy(text), self._info(frotz, self._route) | {TASK_ID: f"{self.spec.id}-{seed}"}

    def step(self, action: str) -> Step:
        """Pass one command to the game. A command that must not be passed costs the turn."""
        frotz = self._interpreter("step")
        if not self._running:
            raise EnvStateError(f"step of {self.spec.id}: the episode has not begun: call reset first")
        command = self.read(action)
        if command is None:
            return CLOSED, 0.0, False, False, self._info(frotz) | {INVALID_ACTION: True}
        text, gained, over, _ = frotz.step(command)
        self._running = not over
        return (
            tidy(text),
            float(gained),
            bool(over),
            False,
            self._info(frotz) | {INVALID_ACTION: not is_understood(text)},
        )

    def close(self) -> None:
        if self._frotz is not None:
            self._frotz.close()
            self._frotz = None

    def read(self, action: str) -> str | None:
        """Return the command that an action may pass to the game, or None."""
        return read_command(action)

    def _interpreter(self, method: str) -> FrotzEnv:
        if self._frotz is None:
            raise EnvStateError(f"{method} of {self.spec.id}: the environment is closed: make a new one")
        return self._frotz

    def _info(self, frotz: FrotzEnv, route: list[tuple[int, str]] | None = None) -> Info:
        location = frotz.get_player_location()
        privileged: dict[str, Any] = {"location": 0 if location is None else location.num}
        if route is not None:
            privileged["route"] = route
        info: Info = {SUCCESS: bool(frotz.victory()), INVALID_ACTION: False, PRIVILEGED: privileged}
        if self._valid is not None:
            info[VALID_ACTIONS] = self._valid.now()
        return info


def find_route(frotz: FrotzEnv) -> list[tuple[int, str]]:
    """Return jericho's walkthrough as pairs of place and command, without commands that change neither place nor score.

    This moves the interpreter; reset it afterwards.
    """
    route = []
    frotz.reset()
    for action in frotz.get_walkthrough():
        before = frotz.get_player_location().num
        _, gained, over, _ = frotz.step(action)
        if gained or over or frotz.get_player_location().num != before:
            route.append((before, action.lower()))
    return route
