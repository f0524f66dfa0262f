"""The base class of most scripted demonstrators: `MixedDemonstrator`."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from envs.base import PRIVILEGED, VALID_ACTIONS, Observation


class MixedDemonstrator(ABC):
    """A demonstrator that plays one of the best actions with probability `skill`, and else any valid action.

    A subclass implements `best_actions`. `self.state` is the privileged info of the last answer, so a subclass may use
    values that the policy cannot see.
    """

    def __init__(self, *, skill: float) -> None:
        self.skill = skill
        self.state: Mapping[str, Any] = {}
        self._valid: Sequence[str] = ()
        self._random = random.Random()

    def begin(self, observation: Observation, info: Mapping[str, Any], *, seed: int) -> None:
        # Independent of the random stream of the environment, which drew the task from the same seed.
        self._random = random.Random(f"player {seed}")
        self._look(info)

    def act(self) -> str:
        skilled = self._random.random() < self.skill
        return self._random.choice(self.best_actions() if skilled else self._valid)

    def see(self, action: str, observation: Observation, info: Mapping[str, Any]) -> None:
        self._look(info)

    @abstractmethod
    def best_actions(self) -> Sequence[str]:
        """Return the best actions for this turn, which are equally good; never empty."""

    def _look(self, info: Mapping[str, Any]) -> None:
        self.state = info[PRIVILEGED]
        self._valid = info[VALID_ACTIONS]
