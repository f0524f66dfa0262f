"""Construction of the configured renderer, and demonstrations as tokenized episodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actors.config import RolloutConfig
from actors.rendering.chat import ChatRenderer
from actors.rendering.context import EpisodeContext
from actors.rendering.plain import PlainRenderer
from actors.rendering.renderer import Action, Renderer, Transcript
from buffer.episodes.schema import Episode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from envs import Demonstration


def make_renderer(config: RolloutConfig, tokenizer: PreTrainedTokenizerBase) -> Renderer:
    """Return the renderer of `config`; `auto` means chat if the tokenizer has a chat template. Raises RenderError."""
    kind = config.renderer
    if kind == "auto":
        kind = "chat" if tokenizer.chat_template else "plain"
    return ChatRenderer(tokenizer) if kind == "chat" else PlainRenderer(tokenizer)


def render_demonstration(demo: Demonstration, renderer: Renderer, context: EpisodeContext) -> Episode:
    """Return a scripted episode with tokens. No policy sampled it: log-probabilities are 0.0 and versions -1."""
    transcript = Transcript(renderer, demo.observations[0], context)
    actions = [renderer.encode_action(text, context) for text in demo.actions]
    turns = zip(demo.actions, actions, demo.observations[1:], demo.rewards, strict=True)
    for text, tokens, observation, reward in turns:
        transcript.add(Action(text, {"role": "assistant", "content": text}), tokens, observation, reward)
    length = sum(map(len, actions))
    return transcript.episode(
        episode_id=f"demonstration-{demo.env}-{demo.seed}",
        env=demo.env,
        task_id=demo.task_id,
        seed=demo.seed,
        worker="demonstrator",
        logprobs=np.zeros(length, np.float32),
        versions=np.full(length, -1, np.int32),
        terminated=demo.terminated,
        truncated=demo.truncated,
        success=demo.success,
    )
