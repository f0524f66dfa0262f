"""The scripted player of Detective: plays the walkthrough, or any valid command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from envs.base import PRIVILEGED, VALID_ACTIONS, Observation
from envs.toolkit.mixed_demonstrator import MixedDemonstrator


class DetectiveDemonstrator(MixedDemonstrator):
    """Plays `Detective(story=...)`: the next step of the walkthrough with probability `skill`, else any valid command.

    After a different command it continues with the nearest later step of the walkthrough at its place, or else with the
    last earlier one. In a place that is not on the walkthrough it plays any valid command. If `info` holds no valid
    actions, its other commands are those of the walkthrough.
    """

    def __init__(self, *, skill: float, story: str | None = None, valid_actions: bool = True) -> None:
        del story, valid_actions  # arguments of the environment
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
        # The watchdog's truncated end has neither key, and no action follows it.
        self.state = info.get(PRIVILEGED, self.state)
        self._valid = info.get(VALID_ACTIONS) or sorted({action for _, action in self._route})
