"""Registers every environment of this project in Gymnasium.

Importing this module registers them, so either form works:

    gymnasium.make("envs.adapters.gymnasium_served:archer/KeyDoor-v0")
    gymnasium.make("archer/KeyDoor-v0", size=6)  # after the import
"""

from __future__ import annotations

import copy
import string
from collections.abc import Mapping
from typing import Any

import gymnasium
from gymnasium import spaces

from envs.base import PRIVILEGED, Info, Observation, as_text
from envs.registry import make, specs

NAMESPACE = "archer"

SAMPLE_LENGTH = 100
"""Greatest length of sampled texts, in characters."""


class AnyText(spaces.Text):
    """The space of all texts. Its samples are short and ASCII."""

    def __init__(self) -> None:
        super().__init__(max_length=SAMPLE_LENGTH, min_length=0, charset=string.printable)

    def contains(self, x: Any) -> bool:
        return isinstance(x, str)

    def __repr__(self) -> str:
        return "AnyText()"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnyText)

    __hash__ = None  # type: ignore[assignment]  # other spaces compare by value too


class ServedEnv(gymnasium.Env[str, str]):
    """An environment of this project behind Gymnasium's interface, with its time limit.

    `env_id`, `max_turns` and further arguments are those of `envs.make`. The seed of `reset` is the seed of the
    episode; without one, the episode seed is drawn from the generator of the last seed, as Gymnasium specifies. Chat
    messages become lines of text. `info` omits the privileged values, which an agent must not see.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012  # Gymnasium's own name and type

    def __init__(
        self, env_id: str, *, max_turns: int | None = None, render_mode: str | None = None, **kwargs: Any
    ) -> None:
        self.env = make(env_id, max_turns=max_turns, **kwargs)
        self.observation_space: spaces.Space[str] = AnyText()
        self.action_space: spaces.Space[str] = AnyText()
        self.render_mode = render_mode
        self._last_text = ""

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
        """Return the last observation in render mode "ansi", else None."""
        return self._last_text if self.render_mode == "ansi" else None

    def close(self) -> None:
        self.env.close()

    def _text(self, observation: Observation) -> str:
        self._last_text = as_text(observation)
        return self._last_text


def gymnasium_id(env_id: str) -> str:
    """Return the Gymnasium id of an environment: `archer/KeyDoor-v0` for `key_door`."""
    return f"{NAMESPACE}/{''.join(word.capitalize() for word in env_id.split('_'))}-v0"


def register_all() -> list[str]:
    """Register every environment that is not registered yet; return all ids in Gymnasium."""
    ids = []
    for spec in specs():
        if spec.id == "gymnasium":  # an adapter to Gymnasium itself
            continue
        ids.append(gymnasium_id(spec.id))
        if ids[-1] not in gymnasium.registry:
            gymnasium.register(ids[-1], entry_point=f"{__name__}:ServedEnv", kwargs={"env_id": spec.id})
    return ids


def _shown(info: Info) -> Info:
    """Return a deep copy of `info` without privileged values, because an agent may keep it after the next turn."""
    return {key: copy.deepcopy(value) for key, value in info.items() if key != PRIVILEGED}


register_all()
