"""`GymnasiumEnv`: environments of Gymnasium, with actions and observations as text.

docs/environments/gymnasium.md lists the spaces that have a default text; other spaces need functions of the user.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.adapters.specs import GYMNASIUM
from envs.base import INVALID_ACTION, SUCCESS, TASK_ID, VALID_ACTIONS, EnvSpec, Info, Step
from envs.errors import EnvArgumentError
from envs.user_code import load_function

MAX_NUMBERS = 64
"""Arrays with more numbers have no default text."""

MAX_NAMES = 1000
"""Action spaces with more actions have no default names."""

INVALID = "Not a possible action."

Read = Callable[[str], Any]
Describe = Callable[[Any], str]


class GymnasiumEnv:
    """An environment that `gymnasium.make` returns, played in words.

    gym_id: id in Gymnasium, or `module:id` to import a module first.
    gym_kwargs: arguments for `gymnasium.make`.
    actions: `module:function`, called with the text and the Gymnasium environment; returns the action, or None if the
        text is not an action.
    observe: `module:function`, called with the observation and the Gymnasium environment; returns the text.
    action_names: names for the actions of a `Discrete` space, in order.

    An action that cannot be parsed costs a turn here and no step in Gymnasium. `truncated` is passed on. The time limit
    of the Gymnasium environment, if any, becomes `spec.max_turns`; `max_turns=` sets a shorter one.
    """

    spec: EnvSpec = GYMNASIUM

    def __init__(
        self,
        *,
        gym_id: str,
        gym_kwargs: Mapping[str, Any] | None = None,
        actions: str | None = None,
        observe: str | None = None,
        action_names: Sequence[str] | None = None,
    ) -> None:
        own_read = load_function("gymnasium", "actions", actions)
        own_describe = load_function("gymnasium", "observe", observe)
        try:
            env = gymnasium.make(gym_id, **(gym_kwargs or {}))
        except (gymnasium.error.Error, ModuleNotFoundError, TypeError) as error:
            raise EnvArgumentError(f"gymnasium: {gym_id} cannot be made: {error}") from error
        self.env_id, self.gym = gym_id, env
        self._names: list[str] = []
        self._read: Read = (lambda text: own_read(text, env)) if own_read else self._reader(action_names)
        self._describe: Describe = (
            (lambda seen: own_describe(seen, env)) if own_describe else describer(env.observation_space, gym_id)
        )
        limit = env.spec.max_episode_steps if env.spec is not None else None
        # A spec of this instance, because the time limit is known only after `gymnasium.make`.
        self.spec = replace(GYMNASIUM, max_turns=limit) if limit else GYMNASIUM

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[str, Info]:
        """Reset the Gymnasium environment with this seed and these options. The first observation begins with the
        action names.
        """
        seen, theirs = self.gym.reset(seed=seed, options=None if options is None else dict(options))
        verbs = f"Actions: {', '.join(self._names)}.\n" if self._names else ""
        return verbs + self._describe(seen), self._info(theirs) | {TASK_ID: self.env_id}

    def step(self, action: str) -> Step:
        understood = self._read(action)
        if understood is None:
            return INVALID, 0.0, False, False, self._info({}, invalid=True)
        seen, reward, terminated, truncated, theirs = self.gym.step(understood)
        return self._describe(seen), float(reward), bool(terminated), bool(truncated), self._info(theirs)

    def close(self) -> None:
        self.gym.close()

    def _info(self, theirs: Mapping[str, Any], *, invalid: bool = False) -> Info:
        """Return `info`: `valid_actions` if there are names, `success` if reported, and the original info under
        `gymnasium`.
        """
        info: Info = {INVALID_ACTION: invalid, "gymnasium": theirs}
        if self._names:
            info[VALID_ACTIONS] = self._names
        if theirs:
            success = theirs.get("is_success", theirs.get("success"))
            if success is not None:
                info[SUCCESS] = bool(success)
        return info

    def _reader(self, names: Sequence[str] | None) -> Read:
        space = self.gym.action_space
        if isinstance(space, spaces.Text):
            return lambda text: text if space.contains(text) else None
        if not isinstance(space, spaces.Discrete):
            raise EnvArgumentError(
                f"gymnasium: {self.env_id} has actions of {type(space).__name__}, which have no default words: "
                "give a function that parses them, actions=module:function"
            )
        if space.n > MAX_NAMES:
            raise EnvArgumentError(
                f"gymnasium: {self.env_id} has {space.n} actions, more than {MAX_NAMES}: give a function that "
                "parses them, actions=module:function"
            )
        if names is None:
            meanings = getattr(self.gym.unwrapped, "get_action_meanings", None)
            names = meanings() if meanings is not None else [str(space.start + i) for i in range(int(space.n))]
        if len(names) != space.n or len(set(map(str.casefold, names))) != len(names):
            raise EnvArgumentError(
                f"gymnasium: action_names of {self.env_id} must be {space.n} different words, one for each action, "
                f"but is {list(names)}"
            )
        self._names = list(names)
        actions = {str(space.start + i): space.start + i for i in range(int(space.n))}
        actions |= {name.casefold(): space.start + i for i, name in enumerate(names)}

        # Look up the exact text first, because normalizing it takes longer.
        return lambda text: actions[text] if text in actions else actions.get(text.strip(" \t\r\n.!").casefold())


def describer(space: spaces.Space[Any], gym_id: str) -> Describe:
    """Return a function that describes the observations of a space. Raises EnvArgumentError if there is no default."""
    if isinstance(space, spaces.Text):
        return lambda seen: seen
    if isinstance(space, spaces.Discrete):
        if space.n > MAX_NAMES:
            return lambda seen: str(int(seen))
        texts = {number: str(number) for number in range(int(space.start), int(space.start + space.n))}
        return lambda seen: texts[int(seen)]
    if isinstance(space, spaces.Dict):
        parts = {name: describer(part, gym_id) for name, part in space.items()}
        return lambda seen: "; ".join(f"{name}: {describe(seen[name])}" for name, describe in parts.items())
    if isinstance(space, spaces.Tuple):
        describers = [describer(part, gym_id) for part in space]
        return lambda seen: "; ".join(describe(part) for describe, part in zip(describers, seen, strict=True))
    if isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary):
        size = int(np.prod(space.shape))
        if size <= MAX_NUMBERS:
            form = " ".join(["%.3g" if np.issubdtype(space.dtype, np.floating) else "%d"] * size)
            if len(space.shape) == 1:
                return lambda seen: form % tuple(seen.tolist())
            return lambda seen: form % tuple(np.ravel(seen).tolist())
    raise EnvArgumentError(
        f"gymnasium: {gym_id} has observations of {space}, which have no default text: give a function "
        "that describes them, observe=module:function"
    )
