"""What the rendering of an episode depends on besides its messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.config import RolloutConfig


@dataclass(frozen=True)
class EpisodeContext:
    """Made once for each episode, so that every turn is rendered alike.

    time: the time that a chat template reads, at every turn of the episode.
    tools: JSON schemas of the tools that the template shows; empty if there are none.
    system_prompt: text of a system message before the first observation; None if there is none.
    """

    time: datetime
    tools: tuple[Mapping[str, Any], ...] = ()
    system_prompt: str | None = None

    def strftime_now(self, form: str) -> str:
        """Return the time in the format `form`; chat templates call this function by its name."""
        return self.time.strftime(form)


def episode_context(config: RolloutConfig, tools: tuple[Mapping[str, Any], ...] = ()) -> EpisodeContext:
    """Return the context of an episode that begins now; `tools` are those of the renderer."""
    return EpisodeContext(datetime.now(), tools, config.system_prompt)
