"""The scripted player of Detective: between any valid command and the walkthrough, taken up again where it can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from envs.base import PRIVILEGED, VALID_ACTIONS, Observation
from envs.toolkit.mixed_demonstrator import MixedDemonstrator


class DetectiveDemonstrator(MixedDemonstrator):
    """Plays `Detective(story=...)`: with probability `skill` a turn the next step of the walkthrough, else any command.

    After a command of another way it goes on with the walkthrough's nearest later step from where it is, or else the
    last earlier one; in a place that the walkthrough never sees it can only try. Without valid actions in the info its
    other commands are those of the walkthrough.
    """

    def __init__(self, *, skill: float, story: str | None = None, valid_actions: bool = True) -> None:
        del story, valid_actions  # It takes what the environment takes, and reads neither.
        super().__init__(skill=skill)
        self._route: list[tuple[int, str]] = []
        self._next = 0

    def begin(self, observation: Observation, info: Mapping[str, Any], *, seed: int) -> None:
        self._route, self._next = info[PRIVILEGED]["route"], 0
        super().begin(observation, info, seed=seed)

    def see(self, action: str, observation: Observation, info: Mapping[str, Any]) -> None:
        if self._next < len(self._route) and action == self._route[self._next][1]:
            self._next += 1
        super().see(action, observation, info)

    def best_actions(self) -> Sequence[str]:
        here = [step for step, (place, _) in enumerate(self._route) if place == self.state["location"]]
        if not here:
            return self._valid
        self._next = min((step for step in here if step >= self._next), default=here[-1])
        return [self._route[self._next][1]]

    def _look(self, info: Mapping[str, Any]) -> None:
        # A truncated end by the watchdog tells nothing, and nothing is done after it.
        self.state = info.get(PRIVILEGED, self.state)
        self._valid = info.get(VALID_ACTIONS) or sorted({action for _, action in self._route})
