"""The protocol of renderers, and the transcript of an episode that a renderer writes.

The tokens of an episode only grow, and the tokens that the engine sampled stay unchanged. A renderer appends the
separator and the new observation, so that the state of turn t is a prefix of the state of turn t + 1. Only a renderer
that drops thoughts renders the whole history again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from actors.errors import RenderError
from actors.rendering.context import EpisodeContext
from actors.rendering.thoughts import Thoughts
from actors.tools.call_format import tool_messages
from buffer.episodes.schema import Episode

if TYPE_CHECKING:
    from envs import Message, Observation


class Action(NamedTuple):
    """What a renderer reads in the tokens of an action.

    text: what the environment receives.
    message: the assistant message that stands for the action in the history.
    rejected: whether the action is meant as a native tool call but is none of a tool that exists.
    thought: the thought before the text, with its markers; neither `text` nor `message` contains it.
    endless: whether the thought has no end, so that `text` is empty.
    """

    text: str
    message: Message
    rejected: bool = False
    thought: str = ""
    endless: bool = False


class Renderer(Protocol):
    """Converts between text and tokens. Renderers are stateless: one serves all episodes of a worker."""

    stop_token_ids: list[int]
    """Each of these tokens ends an action and is its last token."""
    warning: str | None
    """A sentence for people if actions may run to their token limit; else None."""
    stop_text: str | None
    """Text that ends an action, where no token does; None if tokens do."""
    tools: tuple[Mapping[str, Any], ...]
    """JSON schemas of the tools that the policy calls natively; empty if it calls by lines of JSON."""
    thoughts: Thoughts | None
    """The thoughts of the model; None if it has none."""
    drops_thoughts: bool
    """Whether each turn renders the history again, without the thoughts of earlier turns."""

    def start(self, observation: Observation, context: EpisodeContext, actions: Collection[int] = ()) -> list[int]:
        """Return the tokens of s_0, or of a state after the whole conversation in `observation`.

        `actions` are the positions of the messages in which the policy acted; the others are the environment's.
        """

    def extend(
        self, tokens: Sequence[int], action_tokens: Sequence[int], observation: Observation, context: EpisodeContext
    ) -> list[int]:
        """Return the tokens of s_{t+1}, given those of s_t and a_t and the observation that followed."""

    def ends(self, action_tokens: Sequence[int]) -> bool:
        """Return whether the tokens so far of an action contain the stop text."""

    def read_action(self, action_tokens: Sequence[int], context: EpisodeContext) -> Action:
        """Return what the tokens of an action say."""

    def encode_action(self, text: str, context: EpisodeContext) -> list[int]:
        """Return the tokens of an action that is given as the environment reads it; the last one is a stop token."""


def as_messages(observation: Observation) -> list[Message]:
    """Return `observation` as chat messages; a string becomes one user message."""
    if isinstance(observation, str):
        return [{"role": "user", "content": observation}]
    return list(observation)


class Transcript:
    """The tokens and messages of an episode so far, and the positions of its actions.

    Where the renderer drops thoughts, a turn renders the history again. If that is not what was written so far, its
    state begins a new segment (`Episode.state_start`).

    Args:
        name: the episode, with which errors begin.
    """

    def __init__(
        self, renderer: Renderer, observation: Observation, context: EpisodeContext, *, name: str = ""
    ) -> None:
        self._name = name
        self._renderer = renderer
        self._context = context
        self._messages = as_messages(observation)
        self._history = as_messages(observation)
        self._actions: list[int] = []  # positions in the history
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._rewards: list[float] = []
        self._state_start = [0]
        with self._naming():
            self._tokens = renderer.start(observation, context)

    @property
    def state(self) -> list[int]:
        """The tokens of the present state."""
        return self._tokens[self._state_start[-1] :]

    def add(self, action: Action, action_tokens: list[int], observation: Observation, reward: float) -> None:
        """Append an action, as it was read and as tokens, and the observation and reward that followed."""
        self._starts.append(len(self._tokens))
        self._ends.append(len(self._tokens) + len(action_tokens))
        self._rewards.append(reward)
        answer = as_messages(observation)
        if "tool_calls" in action.message:
            answer = tool_messages(action.message, observation)
        # The environment's own form of a call, in which an episode can be rendered for any model.
        said: Message = {**action.message, "content": action.thought + (action.message["content"] or action.text)}
        self._messages += [said, *answer]
        self._actions.append(len(self._history))
        self._history += [action.message, *answer]
        with self._naming():
            if self._renderer.drops_thoughts:
                self._render_again(action_tokens)
            else:
                self._tokens = self._renderer.extend(self._tokens, action_tokens, answer, self._context)
                self._state_start.append(0)

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Add the episode and the turn to a RenderError."""
        try:
            yield
        except RenderError as error:
            raise RenderError(f"{self._name}, turn {len(self._starts)}: {error}") from error

    def _render_again(self, action_tokens: list[int]) -> None:
        """Append the action and the rendered history, or of it what is new if it begins with all that was written."""
        start, written = self._state_start[-1], [*self._tokens[self._state_start[-1] :], *action_tokens]
        rendered = self._renderer.start(self._history, self._context, self._actions)
        if rendered[: len(written)] == written and len(rendered) > len(written):
            self._tokens[start:] = rendered
            self._state_start.append(start)
        else:
            self._state_start.append(start + len(written))
            self._tokens[start:] = [*written, *rendered]

    def episode(self, window: int | None = None, **columns: Any) -> Episode:
        """Return the episode, its last state cut to `window`; `columns` are the columns of `Episode` not known here."""
        end = None if window is None else self._state_start[-1] + window
        segmented = any(self._state_start)
        return Episode(
            tokens=np.array(self._tokens[:end], np.int32),
            action_start=np.array(self._starts, np.int32),
            action_end=np.array(self._ends, np.int32),
            reward=np.array(self._rewards, np.float32),
            state_start=np.array(self._state_start if segmented else [], np.int32),
            messages=[{"role": message["role"], "content": message["content"]} for message in self._messages],
            **columns,
        )
