"""Our environments as Gymnasium's.

Importing this module registers every environment of ours, as Gymnasium's own idiom for packages of environments is:

    gymnasium.make("envs.adapters.gymnasium_served:archer/KeyDoor-v0")

or, once it is imported, `gymnasium.make("archer/KeyDoor-v0", size=6)`.
"""

from __future__ import annotations

import copy
import string
from collections.abc import Mapping
from typing import Any

import gymnasium
from gymnasium import spaces

from envs.base import PRIVILEGED, Info, Observation
from envs.registry import make, specs

NAMESPACE = "archer"

SAMPLE_LENGTH = 100
"""Longest text that the spaces draw."""


class AnyText(spaces.Text):
    """Text of any length in any script; only what `sample` draws is short and ASCII."""

    def __init__(self) -> None:
        super().__init__(max_length=SAMPLE_LENGTH, min_length=0, charset=string.printable)

    def contains(self, x: Any) -> bool:
        return isinstance(x, str)

    def __repr__(self) -> str:
        return "AnyText()"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnyText)

    __hash__ = None  # type: ignore[assignment]  # as other spaces, which compare by value


class ServedEnv(gymnasium.Env[str, str]):
    """One of our environments behind Gymnasium's interface, its time limit and all.

    env_id, max_turns and further arguments are those of `envs.make`. The seed of `reset` is the episode's; without one,
    an episode is drawn from the generator of the last seed, as Gymnasium has it. Chat messages become lines of text.
    `info` is ours but for its privileged part, which an agent must not see.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012  # Gymnasium's own name and type

    def __init__(
        self, env_id: str, *, max_turns: int | None = None, render_mode: str | None = None, **kwargs: Any
    ) -> None:
        self.env = make(env_id, max_turns=max_turns, **kwargs)
        self.observation_space: spaces.Space[str] = AnyText()
        self.action_space: spaces.Space[str] = AnyText()
        self.render_mode = render_mode
        self._told = ""

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[str, Info]:
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**62))
        observation, info = self.env.reset(seed=seed, options=options)
        return self._text(observation), _shown(info)

    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._text(observation), float(reward), terminated, truncated, _shown(info)

    def render(self) -> str | None:
        """The last observation, in the mode "ansi"."""
        return self._told if self.render_mode == "ansi" else None

    def close(self) -> None:
        self.env.close()

    def _text(self, observation: Observation) -> str:
        if not isinstance(observation, str):
            observation = "\n".join(f"{message['role']}: {message['content']}" for message in observation)
        self._told = observation
        return observation


def gymnasium_id(env_id: str) -> str:
    """The id in Gymnasium of an id of ours: `key_door` is `archer/KeyDoor-v0`."""
    return f"{NAMESPACE}/{''.join(word.capitalize() for word in env_id.split('_'))}-v0"


def register_all() -> list[str]:
    """Register every environment of ours that isn't yet, and answer all their ids there."""
    ids = []
    for spec in specs():
        if spec.id == "gymnasium":  # theirs already
            continue
        ids.append(gymnasium_id(spec.id))
        if ids[-1] not in gymnasium.registry:
            gymnasium.register(ids[-1], entry_point=f"{__name__}:ServedEnv", kwargs={"env_id": spec.id})
    return ids


def _shown(info: Info) -> Info:
    """A copy, as Gymnasium asks for: what an agent keeps of a turn must not change with the next."""
    return {key: copy.deepcopy(value) for key, value in info.items() if key != PRIVILEGED}


register_all()
