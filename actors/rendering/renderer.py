"""The protocol of renderers, and observations as messages.

The tokens of an episode only grow: the state of turn t is a prefix of the state of turn t + 1, and the tokens that the
engine sampled stay unchanged. A renderer appends the separator and the new observation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from envs import Message, Observation


class Renderer(Protocol):
    """Converts between text and tokens. Renderers are stateless: one serves all episodes of a worker."""

    stop_token_ids: list[int]
    """Each of these tokens ends an action and is its last token."""

    def start(self, observation: Observation) -> list[int]:
        """Return the tokens of s_0."""
        ...

    def extend(self, tokens: Sequence[int], action_tokens: Sequence[int], observation: Observation) -> list[int]:
        """Return the tokens of s_{t+1}, given those of s_t and a_t and the observation that followed."""
        ...

    def action_text(self, action_tokens: Sequence[int]) -> str:
        """Return the text that the environment receives as the action."""
        ...

    def encode_action(self, text: str) -> list[int]:
        """Return the tokens of an action given as text; the last one is a stop token."""
        ...


def as_messages(observation: Observation) -> list[Message]:
    """Return `observation` as chat messages; a string becomes one user message."""
    if isinstance(observation, str):
        return [{"role": "user", "content": observation}]
    return list(observation)
