"""Scripted episodes of a run: as text for a new tokenizer, and as token episodes to clone and to keep in replay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import envs
from actors.config import RolloutConfig
from actors.rendering.factory import make_renderer, render_demonstration
from archer.config.models import RunConfig
from buffer.episodes.schema import Episode


def play_demonstrations(config: RunConfig) -> list[envs.Demonstration]:
    """The episodes that `config.demonstrations` asks for, the same for the same seed."""
    settings = config.demonstrations
    return list(
        envs.demonstrate(
            config.env.id, episodes=settings.episodes, skill=settings.skill, seed=config.seed, **config.env.kwargs
        )
    )


def texts(demonstrations: list[envs.Demonstration]) -> list[str]:
    """Each demonstration as it reads on the page, a line for each observation and each action."""
    pages = []
    for demonstration in demonstrations:
        lines = []
        for turn, observation in enumerate(demonstration.observations):
            lines.append(_text(observation))
            lines.extend(demonstration.actions[turn : turn + 1])
        pages.append("\n".join(lines) + "\n")
    return pages


def render(
    demonstrations: list[envs.Demonstration], model: str | Path, rollout: RolloutConfig, *, imported: int = 0
) -> list[Episode]:
    """Demonstrations in the tokens of `model`, in the replay schema.

    imported: the last so many come from elsewhere, where a seed may stand more than once.
    """
    from transformers import AutoTokenizer  # late: takes seconds to import, and a resumed run needs none

    renderer = make_renderer(rollout.renderer, AutoTokenizer.from_pretrained(str(model)))
    episodes = [render_demonstration(demonstration, renderer) for demonstration in demonstrations]
    first = len(episodes) - imported
    return episodes[:first] + [
        replace(episode, episode_id=f"imported-{index}", worker="import")
        for index, episode in enumerate(episodes[first:])
    ]


def fitting(episodes: list[Episode], window: int | None, max_tokens: int) -> list[Episode]:
    """Those at whose every state an engine with that window can write an action of `max_tokens`."""
    if window is None:
        return episodes
    return [episode for episode in episodes if episode.state_end(episode.turns - 1) + max_tokens <= window]


def _text(observation: envs.Observation) -> str:
    if isinstance(observation, str):
        return observation
    return "\n".join(message["content"] for message in observation)
