"""Gymnasium environments for the tests of the adapter; importable as `gym_cases:Id`."""

from __future__ import annotations

import string

import gymnasium
import numpy as np
from gymnasium import spaces


class Echo(gymnasium.Env):
    """Repeats its action, ends on "end", and gives 1 each turn."""

    observation_space = spaces.Text(max_length=50, min_length=0, charset=string.printable)
    action_space = spaces.Text(max_length=10, charset="abcdefghijklmnopqrstuvwxyz ")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return f"seed {seed} options {options}", {}

    def step(self, action):
        return action, 1, action == "end", False, {"is_success": np.bool_(action == "end")}


class Cutting(Echo):
    """Truncates after two turns."""

    def reset(self, *, seed=None, options=None):
        self.turns = 0
        return super().reset(seed=seed, options=options)

    def step(self, action):
        self.turns += 1
        return action, 0.0, False, self.turns == 2, {}


class Mixed(gymnasium.Env):
    """Has observations of several numeric spaces, and a vector as action."""

    observation_space = spaces.Dict(
        {
            "at": spaces.Box(-9, 9, (2,), np.float32),
            "card": spaces.Discrete(5),
            "hand": spaces.Tuple([spaces.MultiBinary(3), spaces.MultiDiscrete([4, 4])]),
        }
    )
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._seen(0.0), {}

    def step(self, action):
        return self._seen(float(action[0])), 0.0, False, False, {}

    def _seen(self, x):
        return {
            "at": np.array([x, 1 / 3], np.float32),
            "card": 2,
            "hand": (np.array([1, 0, 1], np.int8), np.array([3, 0])),
        }


class Picture(Echo):
    """Has observations without a default text."""

    observation_space = spaces.Box(0, 255, (32, 32, 3), np.uint8)


class Vast(Echo):
    """Has more actions and observations than can be listed."""

    observation_space = spaces.Discrete(10**12)
    action_space = spaces.Discrete(10**12, start=-1)

    def reset(self, *, seed=None, options=None):
        return 10**11, {}


def to_vector(text, env):
    try:
        return np.array([float(text)], np.float32)
    except ValueError:
        return None


def at_only(seen, env):
    return f"{type(env.unwrapped).__name__} at {seen['at'][0]:.1f}"


for case in (Echo, Cutting, Mixed, Picture, Vast):
    gymnasium.register(f"{case.__name__}-v0", entry_point=case)
gymnasium.register("Limited-v0", entry_point=Echo, max_episode_steps=4)
