"""Demonstrations of a run: as text to train a tokenizer on, and as token episodes to clone and to store in replay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

import envs
from actors.config import RolloutConfig
from actors.rendering.context import episode_context
from actors.rendering.factory import make_renderer, render_demonstration
from archer.config.models import RunConfig
from buffer.episodes.schema import Episode, episodes_to_batch

_BATCH = 256  # episodes of one append to replay


def play_demonstrations(config: RunConfig) -> list[envs.Demonstration]:
    """Return the scripted episodes that `config.demonstrations` requests; the same seed gives the same episodes."""
    script = config.demonstrations.model_dump(include={"episodes", "skill"})
    return list(envs.demonstrate(config.env.id, **script, seed=config.seed, **config.env.kwargs))


def texts(demonstrations: list[envs.Demonstration]) -> list[str]:
    """Return each demonstration as text, observations and actions on lines of their own."""
    pages = []
    for demonstration in demonstrations:
        lines = []
        for turn, observation in enumerate(demonstration.observations):
            lines.append(_text(observation))
            lines.extend(demonstration.actions[turn : turn + 1])
        pages.append("\n".join(lines) + "\n")
    return pages


def render(
    demonstrations: list[envs.Demonstration],
    model: str | Path,
    rollout: RolloutConfig,
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    imported: int = 0,
) -> list[Episode]:
    """Return demonstrations in the tokens of `model`, in the replay schema.

    tools: the JSON schemas of the environment's tools. Where `model` calls them natively, so do the demonstrations.
    The last `imported` demonstrations come from files. Their seeds may repeat, so their ids count them instead.
    """
    from transformers import AutoTokenizer  # late: takes seconds to import, and a resumed run does not need it

    renderer = make_renderer(rollout, AutoTokenizer.from_pretrained(str(model)), tools)
    context = episode_context(rollout, renderer.tools)
    episodes = [render_demonstration(demonstration, renderer, context) for demonstration in demonstrations]
    first = len(episodes) - imported
    return episodes[:first] + [
        replace(episode, episode_id=f"imported-{index}", worker="import")
        for index, episode in enumerate(episodes[first:])
    ]


def fitting(episodes: list[Episode], window: int | None, max_tokens: int) -> list[Episode]:
    """Return the episodes whose every state leaves room for an action of `max_tokens` in the engine's window."""
    if window is None:
        return episodes
    return [
        episode
        for episode in episodes
        if max(len(episode.state(turn)) for turn in range(episode.turns)) + max_tokens <= window
    ]


def demonstration_batches(episodes: list[Episode]) -> Iterator[pa.RecordBatch]:
    """Yield the episodes in batches to append to replay."""
    for first in range(0, len(episodes), _BATCH):
        yield episodes_to_batch(episodes[first : first + _BATCH])


def _text(observation: envs.Observation) -> str:
    if isinstance(observation, str):
        return observation
    return "\n".join(message["content"] for message in observation)
