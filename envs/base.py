"""The environment protocol: `TextEnv`, `EnvSpec` and the reserved keys of `info`.

Rules that every environment keeps:

- `reset` begins an episode and `step` plays one turn. An observation holds only what is new since the last turn.
- Every string is an action. An action that the environment cannot parse returns an observation that says so and costs a
  turn; it never raises.
- `terminated` means that the task itself ended. `truncated` means that the episode was cut off: by
  `envs.time_limit.TimeLimit` when the turns run out, or by `envs.hosting.child_process.ProcessEnv` when the environment
  hangs.
- All randomness comes from a `random.Random(seed)` of the instance, so one seed gives one episode.

Tools. An environment that declares `EnvSpec.tools` receives each call as one line of JSON,
`{"tool": NAME, "args": {...}}`, and everything else that the policy writes as it is. This holds for every policy: a
base model writes the line itself, and the rollout worker translates the calls that a chat model writes in the format of
its template. A call that cannot be translated (bad syntax, several calls, text beside a call) arrives as
`{"rejected_call": REASON}`; it is a malformed action, which costs a turn, and whose observation tells the policy the
reason. The observation that follows a translated call reaches a chat model as a message of the tool. If the texts of an
environment explain the line of JSON, its constructor takes an argument `calls`; it is "native" for a policy that writes
calls in the format of its template, whose prompt already has the tools. `envs.toolkit.tool_calls` does all of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, Protocol, TypeAlias, TypedDict, get_args, runtime_checkable

from envs.errors import EnvArgumentError

Isolation: TypeAlias = Literal["inline", "thread", "process"]


class Message(TypedDict):
    """A chat message, in the form that the chat templates of tokenizers accept.

    An environment may give `content` as a list of text parts too; `TimeLimit` joins them to lines.
    """

    role: str
    content: str
    name: NotRequired[str]  # of the tool whose result a message of the tool holds
    tool_call_id: NotRequired[str]
    tool_calls: NotRequired[list[dict[str, Any]]]  # of a message of the assistant


Observation: TypeAlias = str | list[Message]
Info: TypeAlias = dict[str, Any]
Step: TypeAlias = tuple[Observation, float, bool, bool, Info]

SUCCESS = "success"
"""Info key, bool: whether the task is solved. Set at least on the last turn."""
TASK_ID = "task_id"
"""Info key, str: which task of the environment this episode plays. Set by `reset`; may be stored and shown."""
VALID_ACTIONS = "valid_actions"
"""Info key, list[str]: actions that are known to be valid now."""
INVALID_ACTION = "invalid_action"
"""Info key, bool: whether the environment could not parse the action of this turn."""
PRIVILEGED = "privileged"
"""Info key, dict: values that the policy must never see (the hidden word, the goal), for demonstrators and critics."""
TIMED_OUT = "timed_out"
"""Info key, bool: whether the action hung the environment, so that the episode was truncated."""
RESERVED_INFO_KEYS = frozenset({SUCCESS, TASK_ID, VALID_ACTIONS, INVALID_ACTION, PRIVILEGED, TIMED_OUT})


@dataclass(frozen=True)
class EnvSpec:
    """Properties of an environment that are known before it is made.

    id: name in the registry.
    description: one sentence for people.
    max_turns: number of turns after which `TimeLimit` truncates the episode.
    reward_range: least and greatest return of one episode.
    discount: suggested gamma for the learner.
    isolation: how the environment must be run. `inline`: fast, called on the event loop. `thread`: blocks, but returns.
        `process`: may hang, crash or change global state, so it runs in a child process.
    tools: JSON schemas of the tools that a chat policy may call; empty if actions are plain text.
    extra: optional extra of this project that must be installed, or None.
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
            raise EnvArgumentError(f"EnvSpec {self.id!r}: reward_range {self.reward_range} must be (least, greatest)")
        if not 0.0 < self.discount <= 1.0:
            raise EnvArgumentError(f"EnvSpec {self.id!r}: discount is {self.discount}, must be in (0, 1]")
        if self.isolation not in get_args(Isolation):
            raise EnvArgumentError(
                f"EnvSpec {self.id!r}: isolation is {self.isolation!r}, must be one of {get_args(Isolation)}"
            )
        for tool in self.tools:
            function = tool.get("function") if isinstance(tool, Mapping) else None
            if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
                raise EnvArgumentError(
                    f'EnvSpec {self.id!r}: a tool must be {{"type": "function", "function": {{"name": ..., '
                    f'"description": ..., "parameters": JSON schema}}}}, but one is {str(tool)[:80]}'
                )


@runtime_checkable
class TextEnv(Protocol):
    """An environment, which plays one episode at a time. It may also have coroutines `areset` and `astep`."""

    @property
    def spec(self) -> EnvSpec: ...

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[Observation, Info]:
        """Begin the episode of `seed`; return its first observation and info."""
        ...

    def step(self, action: str) -> Step:
        """Play one turn; return observation, reward, terminated, truncated and info."""
        ...

    def close(self) -> None:
        """Release the resources of the environment. May be called more than once."""
        ...


def privileged_text(info: Mapping[str, Any]) -> str:
    """Return as text what `info["privileged"]` of a reset hides from the policy; "" if it hides nothing that is text.

    It has the texts, and the numbers and flags with their names. Other values (a map, a task) have no fixed text and
    are left out.
    """
    found = []
    for name, value in info.get(PRIVILEGED, {}).items():
        if type(value) in (int, float, bool):
            found.append(f"{name} {value}")
        elif type(value) is str:
            found.append(value)
    # No file and no tokenizer takes half of a surrogate pair.
    return ", ".join(found).encode(errors="replace").decode()


def as_text(observation: Observation) -> str:
    """Return an observation as text. A chat message becomes a line `role: content`."""
    if isinstance(observation, str):
        return observation
    return "\n".join(f"{message['role']}: {message['content']}" for message in observation)


def unwrapped(env: TextEnv) -> TextEnv:
    """Return the environment inside all wrappers. A wrapper keeps the wrapped environment in `.env`."""
    while isinstance(inner := getattr(env, "env", None), TextEnv):
        env = inner
    return env
