"""The time limit that `envs.make` applies to every environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from envs.base import EnvSpec, Info, Observation, Step, TextEnv
from envs.border import checked_reset, checked_step
from envs.errors import EnvArgumentError, EnvStateError


class TimeLimit:
    """Truncates an episode after `max_turns` turns, and checks the order of calls and what the environment returns.

    If the task ends on the last turn, the episode is terminated and not truncated. A step before `reset`, after the end
    of the episode or after `close` raises EnvStateError. A wrong value of the environment raises EnvFailedError.
    """

    def __init__(self, env: TextEnv, max_turns: int | None = None) -> None:
        limit = env.spec.max_turns if max_turns is None else max_turns
        if limit < 1:
            raise EnvArgumentError(f"{env.spec.id}: max_turns is {limit}, must be at least 1")
        self.env = env
        self.spec: EnvSpec = env.spec if limit == env.spec.max_turns else replace(env.spec, max_turns=limit)
        self.turn = 0
        self._closed = False
        self._refusal: str | None = "the episode has not begun: call reset first"

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[Observation, Info]:
        self._before_reset()
        return self._after_reset(self.env.reset(seed=seed, options=options))

    def step(self, action: str) -> Step:
        self._before_step()
        return self._after_step(self.env.step(action))

    async def areset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[Observation, Info]:
        """Do the same as `reset` through the environment's own `areset`, which it must have."""
        self._before_reset()
        return self._after_reset(await self.env.areset(seed=seed, options=options))  # type: ignore[attr-defined]

    async def astep(self, action: str) -> Step:
        """Do the same as `step` through the environment's own `astep`, which it must have."""
        self._before_step()
        return self._after_step(await self.env.astep(action))  # type: ignore[attr-defined]

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._refusal = "the environment is closed: make a new one"
            self.env.close()

    def _before_reset(self) -> None:
        if self._closed:
            raise EnvStateError(f"reset of {self.spec.id}: the environment is closed: make a new one")
        # If the reset fails, steps of the previous episode must be refused.
        self._refusal = "the last reset did not finish: call reset again"

    def _after_reset(self, result: tuple[Observation, Info]) -> tuple[Observation, Info]:
        checked = checked_reset(result, self.spec.id)
        self.turn = 0
        self._refusal = None
        return checked

    def _before_step(self) -> None:
        if self._refusal is not None:
            raise EnvStateError(f"step of {self.spec.id}: {self._refusal}")
        self._refusal = "the last step did not finish: call reset"

    def _after_step(self, result: Step) -> Step:
        observation, reward, terminated, truncated, info = checked_step(result, self.spec.id, self.turn + 1)
        self.turn += 1
        truncated = not terminated and (truncated or self.turn >= self.spec.max_turns)
        if terminated or truncated:
            self._refusal = "the episode has ended: call reset to begin another"
        else:
            self._refusal = None
        return observation, reward, terminated, truncated, info
