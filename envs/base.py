"""What a text environment is: five values over strings, one object per stream of episodes.

Invariants every environment keeps, whoever wrote it:

- `reset` begins an episode and `step` plays one turn of it; observations hold only what is new since the last turn.
- Any string at all is an action. One that can't be understood gets an observation that says so and costs a turn; it
  is never an exception.
- `terminated` says that the task itself ended. Running out of turns is `truncated`, and only
  `envs.wrappers.TimeLimit` sets it; so is a hang, for which `envs.hosting.child_process.ProcessEnv` sets it.
- All randomness comes from `random.Random(seed)` of the instance, so one seed gives one episode.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, TypedDict, get_args, runtime_checkable

from envs.errors import EnvArgumentError

Isolation: TypeAlias = Literal["inline", "thread", "process"]


class Message(TypedDict):
    """One message of a chat, as the tokenizer's chat templates take it."""

    role: str
    content: str


Observation: TypeAlias = str | list[Message]
Info: TypeAlias = dict[str, Any]
Step: TypeAlias = tuple[Observation, float, bool, bool, Info]

SUCCESS = "success"
"""Info key, bool: whether the task is solved; set on the last turn at least."""
TASK_ID = "task_id"
"""Info key, str: which task of the environment this episode is; set by `reset`. May be stored and shown to people."""
VALID_ACTIONS = "valid_actions"
"""Info key, list[str]: actions known to be valid now."""
INVALID_ACTION = "invalid_action"
"""Info key, bool: whether the action of this turn could not be understood."""
PRIVILEGED = "privileged"
"""Info key, dict: what the policy must never see (the hidden word, the goal), for demonstrators and critics."""
TIMED_OUT = "timed_out"
"""Info key, bool: whether the environment hung over this action, was killed by its watchdog and so truncated."""
RESERVED_INFO_KEYS = frozenset({SUCCESS, TASK_ID, VALID_ACTIONS, INVALID_ACTION, PRIVILEGED, TIMED_OUT})


@dataclass(frozen=True)
class EnvSpec:
    """What is known of an environment before it is made.

    id: the registry's name for it.
    description: one sentence for people.
    max_turns: turns after which `TimeLimit` truncates the episode.
    reward_range: least and greatest return of one episode.
    discount: a hint for the learner's gamma.
    isolation: how a scheduler must run it. `inline`: quick, called on the event loop; `thread`: blocks, but ends;
        `process`: may hang, crash or disturb global state, so it lives in a child process.
    tools: JSON schemas of the tools a chat policy may call; empty where actions are plain text.
    extra: the optional extra of this project that must be installed, or None.
    """

    id: str
    description: str
    max_turns: int
    reward_range: tuple[float, float]
    discount: float = 0.95
    isolation: Isolation = "inline"
    tools: tuple[Mapping[str, Any], ...] = ()
    extra: str | None = None

    def __post_init__(self) -> None:
        if not self.id:
            raise EnvArgumentError("EnvSpec.id is empty: give the environment a name")
        if self.max_turns < 1:
            raise EnvArgumentError(f"EnvSpec {self.id!r}: max_turns is {self.max_turns}, must be at least 1")
        if self.reward_range[0] > self.reward_range[1]:
            raise EnvArgumentError(f"EnvSpec {self.id!r}: reward_range {self.reward_range} is upside down")
        if not 0.0 < self.discount <= 1.0:
            raise EnvArgumentError(f"EnvSpec {self.id!r}: discount is {self.discount}, must be in (0, 1]")
        if self.isolation not in get_args(Isolation):
            raise EnvArgumentError(
                f"EnvSpec {self.id!r}: isolation is {self.isolation!r}, must be one of {get_args(Isolation)}"
            )


@runtime_checkable
class TextEnv(Protocol):
    """One stream of episodes. `areset` and `astep`, coroutines of the same values, are optional beside these."""

    @property
    def spec(self) -> EnvSpec: ...

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[Observation, Info]:
        """Begin the episode that `seed` stands for; return its first observation and info."""
        ...

    def step(self, action: str) -> Step:
        """Play one turn; return observation, reward, terminated, truncated, info."""
        ...

    def close(self) -> None:
        """Give back what the environment holds. May be called more than once."""
        ...


def unwrapped(env: TextEnv) -> TextEnv:
    """The environment inside all wrappers (a wrapper keeps what it wraps in `.env`)."""
    while isinstance(inner := getattr(env, "env", None), TextEnv):
        env = inner
    return env
