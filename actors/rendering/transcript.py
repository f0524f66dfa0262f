"""The transcript of an episode: the tokens and messages so far, and the positions of the actions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actors.rendering.renderer import Renderer, as_messages
from buffer.episodes.schema import Episode

if TYPE_CHECKING:
    from envs import Observation


class Transcript:
    """Grows by one turn at a time; `tokens` is the present state."""

    def __init__(self, renderer: Renderer, observation: Observation) -> None:
        self._renderer = renderer
        self._messages = as_messages(observation)
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._rewards: list[float] = []
        self.tokens = renderer.start(observation)

    def add(self, text: str, action_tokens: list[int], observation: Observation, reward: float) -> None:
        """Append an action, as text and as tokens, and the observation and reward that followed."""
        self._starts.append(len(self.tokens))
        self._ends.append(len(self.tokens) + len(action_tokens))
        self._rewards.append(reward)
        self._messages += [{"role": "assistant", "content": text}, *as_messages(observation)]
        self.tokens = self._renderer.extend(self.tokens, action_tokens, observation)

    def episode(self, window: int | None = None, **columns: Any) -> Episode:
        """Return the episode, its tokens cut to `window`; `columns` are the columns of `Episode` not known here."""
        return Episode(
            tokens=np.array(self.tokens[:window], np.int32),
            action_start=np.array(self._starts, np.int32),
            action_end=np.array(self._ends, np.int32),
            reward=np.array(self._rewards, np.float32),
            messages=[dict(message) for message in self._messages],  # type: ignore[arg-type]
            **columns,
        )
