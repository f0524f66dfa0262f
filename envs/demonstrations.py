"""Scripted episodes: `demonstrate` plays them at a skill from 0 (random) to 1 (the best that the script can do)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Protocol

from envs.base import SUCCESS, TASK_ID, Info, Observation, privileged_text
from envs.errors import EnvArgumentError
from envs.registry import demonstrator_factory, make


@dataclass(frozen=True)
class Demonstration:
    """One episode of T turns as text. A renderer turns it into tokens.

    observations: T + 1 entries; the last one follows the last action.
    actions, rewards: T entries each.
    success: the environment's `success`, or None if it reports none.
    privileged: what the environment hid, as text (`privileged_text`).
    """

    env: str
    task_id: str
    seed: int
    observations: list[Observation]
    actions: list[str]
    rewards: list[float]
    terminated: bool
    truncated: bool
    success: bool | None
    privileged: str = ""

    @property
    def ret(self) -> float:
        """Undiscounted return."""
        return sum(self.rewards)


@dataclass(frozen=True)
class SkillRow:
    """Returns of a demonstrator at one skill: mean, half width of the 95% confidence interval, and success rate."""

    skill: float
    mean: float
    margin: float
    success_rate: float


class Demonstrator(Protocol):
    """A scripted player. It receives the whole `info`, privileged values included."""

    def begin(self, observation: Observation, info: Mapping[str, Any], *, seed: int) -> None:
        """Take the first observation of a new episode."""
        ...

    def act(self) -> str:
        """Return the action for this turn."""
        ...

    def see(self, action: str, observation: Observation, info: Mapping[str, Any]) -> None:
        """Take the observation and info with which the environment answered `action`."""
        ...


def make_demonstrator(env_id: str, *, skill: float, **kwargs: Any) -> Demonstrator:
    """Return the scripted demonstrator for `make(env_id, **kwargs)`. `skill` is in [0, 1]."""
    if not 0.0 <= skill <= 1.0:
        raise EnvArgumentError(f"{env_id}: skill is {skill}, must be between 0 (random) and 1 (best)")
    made: Demonstrator = demonstrator_factory(env_id)(skill=skill, **kwargs)
    return made


def demonstrate(
    env_id: str, *, episodes: int, skill: float, seed: int, max_turns: int | None = None, **kwargs: Any
) -> Iterator[Demonstration]:
    """Play `episodes` scripted episodes and yield each when it ends; episode i has environment seed `seed + i`.

    kwargs: arguments of the environment.

    The same arguments give the same episodes. Wrong arguments raise at this call, not at the first episode.
    """
    if episodes < 0:
        raise EnvArgumentError(f"{env_id}: episodes is {episodes}, must not be negative")
    demonstrator = make_demonstrator(env_id, skill=skill, **kwargs)
    env = make(env_id, max_turns=max_turns, **kwargs)

    def play_all() -> Iterator[Demonstration]:
        try:
            for episode in range(episodes):
                yield play(env, demonstrator, seed=seed + episode)
        finally:
            env.close()

    return play_all()


def play(env: Any, demonstrator: Demonstrator, *, seed: int) -> Demonstration:
    """Play one episode of `env` with `demonstrator` and return it."""
    observation, info = env.reset(seed=seed)
    task_id, privileged = str(info.get(TASK_ID, "")), privileged_text(info)
    observations, actions, rewards = [observation], [], []
    demonstrator.begin(observation, info, seed=seed)
    terminated = truncated = False
    step_info: Info = {}
    while not (terminated or truncated):
        action = demonstrator.act()
        observation, reward, terminated, truncated, step_info = env.step(action)
        demonstrator.see(action, observation, step_info)
        observations.append(observation)
        actions.append(action)
        rewards.append(reward)
    success = step_info.get(SUCCESS)
    return Demonstration(
        env.spec.id, task_id, seed, observations, actions, rewards, terminated, truncated, success, privileged
    )


def returns_by_skill(
    env_id: str, skills: Iterable[float], *, episodes: int = 1000, seed: int = 0, **kwargs: Any
) -> list[SkillRow]:
    """Measure a demonstrator at each skill. The tables in docs/environments/ contain these rows."""
    if episodes < 2:
        raise EnvArgumentError(f"{env_id}: episodes is {episodes}, must be at least 2 for an interval")
    rows = []
    for skill in skills:
        played = list(demonstrate(env_id, episodes=episodes, skill=skill, seed=seed, **kwargs))
        returns = [demonstration.ret for demonstration in played]
        margin = 1.96 * stdev(returns) / math.sqrt(episodes)
        rows.append(SkillRow(skill, fmean(returns), margin, fmean(bool(d.success) for d in played)))
    return rows
