"""Detective (Matt Barringer 1993, ported to Inform by Stuart Moore 2000), the real game, by jericho's interpreter.

Two faults of the usual way to play it are mended here: the ten points that the game holds already when it begins are
not paid, so a return is at most 350; and its debugging verbs are closed (`envs.inform`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from envs.base import INVALID_ACTION, PRIVILEGED, SUCCESS, TASK_ID, VALID_ACTIONS, EnvSpec, Info, Step
from envs.detective.story_file import check_story
from envs.detective.valid_actions import ValidActions
from envs.errors import EnvArgumentError, EnvStateError
from envs.toolkit.inform_commands import is_understood, read_command, tidy

if TYPE_CHECKING:
    from jericho import FrotzEnv

MAX_TURNS = 50
BEST = 350.0
CLOSED = "You can't do that in this game: one plain command a turn."


class Detective:
    """Solve the murder of the mayor: the score gained each turn, 350 in all.

    story: path of the game's story file, which is the user's own.
    valid_actions: whether info holds the valid actions. In a state of the world not seen before they take some hundred
        milliseconds to find; the policy is never shown them.

    Deaths and the solution are `terminated`. It lives in a child process, whose watchdog ends a game that hangs.
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
        from jericho import FrotzEnv  # here: GPL, and a shared library, both for the child process alone

        self._frotz: FrotzEnv | None = FrotzEnv(story)
        self._valid = ValidActions(self._frotz) if valid_actions else None
        self._route = find_route(self._frotz)
        self._running = False

    @classmethod
    def check_arguments(cls, *, story: str | None = None, valid_actions: bool = True) -> None:
        """Refuse what is no story file of the game, before a child process is started."""
        del valid_actions
        check_story(cls.spec.id, story)

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[str, Info]:
        """Begin anew, the interpreter's dice seeded. There are no reset options: any raises EnvArgumentError."""
        if options:
            raise EnvArgumentError(f"{self.spec.id}: unknown reset options {sorted(options)}: there are none")
        frotz = self._interpreter("reset")
        # The interpreter takes 32 bits, and takes 0 for "by the clock".
        frotz.seed(1 + seed % (2**31 - 2))
        text, _ = frotz.reset()
        self._running = True
        return tidy(text), self._info(frotz, self._route) | {TASK_ID: f"{self.spec.id}-{seed}"}

    def step(self, action: str) -> Step:
        """Give one command to the game. Any string is an action; what may not reach the game is answered so."""
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
        """The command that an action may give to the game, or None."""
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
    """jericho's walkthrough as pairs of the place where one is and what to do there, without what changes neither.

    The interpreter is left somewhere in the game; reset it.
    """
    route = []
    frotz.reset()
    for action in frotz.get_walkthrough():
        before = frotz.get_player_location().num
        _, gained, over, _ = frotz.step(action)
        if gained or over or frotz.get_player_location().num != before:
            route.append((before, action.lower()))
    return route
