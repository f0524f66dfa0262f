"""Gymnasium's environments as ours: actions and observations are told in words.

What a space can be told in by default, and what else takes a function of the user's own, stands in
docs/environments/gymnasium.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.adapters.specs import GYMNASIUM
from envs.adapters.user_functions import load_function
from envs.base import INVALID_ACTION, SUCCESS, TASK_ID, VALID_ACTIONS, EnvSpec, Info, Step
from envs.errors import EnvArgumentError

MAX_NUMBERS = 64
"""Arrays of more numbers than this aren't told by default."""

MAX_NAMES = 1000
"""Spaces of more actions than this aren't named one by one."""

INVALID = "Not a possible action."

Read = Callable[[str], Any]
Tell = Callable[[Any], str]


class GymnasiumEnv:
    """An environment that `gymnasium.make` makes, played in words.

    gym_id: its id there, or `module:id`, of which the module is imported first.
    gym_kwargs: arguments for `gymnasium.make`.
    actions: `module:function` of your own, called with the text and the Gymnasium environment, that gives the action,
        or None where the text means none.
    observe: `module:function` of your own, called with the observation and the environment, that gives its text.
    action_names: words for the actions of a `Discrete` space, in their order.

    An action that isn't understood costs a turn of ours and no step of theirs. Their `truncated` stays truncated, their
    time limit is `spec.max_turns` where they have one, and `max_turns=` sets ours beside it.
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
        own_read = None if actions is None else load_function("gymnasium", "actions", actions)
        own_tell = None if observe is None else load_function("gymnasium", "observe", observe)
        try:
            env = gymnasium.make(gym_id, **(gym_kwargs or {}))
        except (gymnasium.error.Error, ModuleNotFoundError, TypeError) as error:
            raise EnvArgumentError(f"gymnasium: {gym_id} can't be made: {error}") from error
        self.env_id, self.gym = gym_id, env
        self._names: list[str] = []
        self._read: Read = (lambda text: own_read(text, env)) if own_read else self._reader(action_names)
        self._tell: Tell = (lambda seen: own_tell(seen, env)) if own_tell else teller(env.observation_space, gym_id)
        limit = env.spec.max_episode_steps if env.spec is not None else None
        # A spec of the instance's own, as their time limit is known only now.
        self.spec = replace(GYMNASIUM, max_turns=limit) if limit else GYMNASIUM

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[str, Info]:
        """Reset theirs with this seed and these options; before the first observation stands what can be done."""
        seen, theirs = self.gym.reset(seed=seed, options=None if options is None else dict(options))
        verbs = f"Actions: {', '.join(self._names)}.\n" if self._names else ""
        return verbs + self._tell(seen), self._info(theirs) | {TASK_ID: self.env_id}

    def step(self, action: str) -> Step:
        meant = self._read(action)
        if meant is None:
            return INVALID, 0.0, False, False, self._info({}, invalid=True)
        seen, reward, terminated, truncated, theirs = self.gym.step(meant)
        return self._tell(seen), float(reward), bool(terminated), bool(truncated), self._info(theirs)

    def close(self) -> None:
        self.gym.close()

    def _info(self, theirs: Mapping[str, Any], *, invalid: bool = False) -> Info:
        """Ours: `valid_actions` where there are names, `success` where they say so, and theirs under `gymnasium`."""
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
                f"gymnasium: {self.env_id} has actions of {type(space).__name__}, which have no words of their own: "
                "name a function of yours that reads them, actions=module:function"
            )
        if space.n > MAX_NAMES:
            raise EnvArgumentError(
                f"gymnasium: {self.env_id} has {space.n} actions, too many to name: name a function of yours that "
                "reads them, actions=module:function"
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
        meant = {str(space.start + i): space.start + i for i in range(int(space.n))}
        meant |= {name.casefold(): space.start + i for i, name in enumerate(names)}

        # What is written just so is found at once; the rest is tidied first.
        return lambda text: meant[text] if text in meant else meant.get(text.strip(" \t\r\n.!").casefold())


def teller(space: spaces.Space[Any], gym_id: str) -> Tell:
    """What tells the observations of a space in words. Raises EnvArgumentError for a space that has none."""
    if isinstance(space, spaces.Text):
        return lambda seen: seen
    if isinstance(space, spaces.Discrete):
        if space.n > MAX_NAMES:
            return lambda seen: str(int(seen))
        told = {number: str(number) for number in range(int(space.start), int(space.start + space.n))}
        return lambda seen: told[int(seen)]
    if isinstance(space, spaces.Dict):
        parts = {name: teller(part, gym_id) for name, part in space.items()}
        return lambda seen: "; ".join(f"{name}: {tell(seen[name])}" for name, tell in parts.items())
    if isinstance(space, spaces.Tuple):
        tellers = [teller(part, gym_id) for part in space]
        return lambda seen: "; ".join(tell(part) for tell, part in zip(tellers, seen, strict=True))
    if isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary):
        size = int(np.prod(space.shape))
        if size <= MAX_NUMBERS:
            form = " ".join(["%.3g" if np.issubdtype(space.dtype, np.floating) else "%d"] * size)
            if len(space.shape) == 1:
                return lambda seen: form % tuple(seen.tolist())
            return lambda seen: form % tuple(np.ravel(seen).tolist())
    raise EnvArgumentError(
        f"gymnasium: {gym_id} has observations of {space}, which are not told in words by default: name a function of "
        "yours that tells them, observe=module:function"
    )
