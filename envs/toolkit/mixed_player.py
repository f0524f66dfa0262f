"""What scripted players have in common: each turn the best action with probability `skill`, else any at all."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from envs.base import PRIVILEGED, VALID_ACTIONS, Observation


class MixedPlayer(ABC):
    """A demonstrator whose turns are its own coin flips; a subclass says which actions are best now.

    `self.state` is the privileged info of the turn before, so a subclass may know more than the policy does.
    """

    def __init__(self, *, skill: float) -> None:
        self.skill = skill
        self.state: Mapping[str, Any] = {}
        self._valid: Sequence[str] = ()
        self._random = random.Random()

    def begin(self, observation: Observation, info: Mapping[str, Any], *, seed: int) -> None:
        # Not the environment's own stream, which drew the task.
        self._random = random.Random(f"player {seed}")
        self._look(info)

    def act(self) -> str:
        skilled = self._random.random() < self.skill
        return self._random.choice(self.best_actions() if skilled else self._valid)

    def see(self, action: str, observation: Observation, info: Mapping[str, Any]) -> None:
        self._look(info)

    @abstractmethod
    def best_actions(self) -> Sequence[str]:
        """The actions that are best now, all of them equally good; never empty."""

    def _look(self, info: Mapping[str, Any]) -> None:
        self.state = info[PRIVILEGED]
        self._valid = info[VALID_ACTIONS]
