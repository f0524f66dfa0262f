"""Construction of the configured renderer, and demonstrations as tokenized episodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actors.config import RendererKind
from actors.rendering.chat import ChatRenderer
from actors.rendering.plain import PlainRenderer
from actors.rendering.renderer import Renderer, as_messages
from buffer.episodes.schema import Episode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from envs import Demonstration


def make_renderer(kind: RendererKind, tokenizer: PreTrainedTokenizerBase) -> Renderer:
    """Return the renderer of `kind`; `auto` means chat if the tokenizer has a chat template. Raises RenderError."""
    if kind == "auto":
        kind = "chat" if tokenizer.chat_template else "plain"
    return ChatRenderer(tokenizer) if kind == "chat" else PlainRenderer(tokenizer)


def render_demonstration(demo: Demonstration, renderer: Renderer) -> Episode:
    """Return a scripted episode with tokens. No policy sampled it: log-probabilities are 0.0 and versions -1."""
    tokens = renderer.start(demo.observations[0])
    messages = as_messages(demo.observations[0])
    starts, ends = [], []
    for action, observation in zip(demo.actions, demo.observations[1:], strict=True):
        action_tokens = renderer.encode_action(action)
        starts.append(len(tokens))
        ends.append(len(tokens) + len(action_tokens))
        tokens = renderer.extend(tokens, action_tokens, observation)
        messages += [{"role": "assistant", "content": action}, *as_messages(observation)]
    length = sum(ends) - sum(starts)
    return Episode(
        episode_id=f"demonstration-{demo.env}-{demo.seed}",
        env=demo.env,
        task_id=demo.task_id,
        seed=demo.seed,
        worker="demonstrator",
        tokens=np.array(tokens, np.int32),
        action_start=np.array(starts, np.int32),
        action_end=np.array(ends, np.int32),
        reward=np.array(demo.rewards, np.float32),
        logprobs=np.zeros(length, np.float32),
        versions=np.full(length, -1, np.int32),
        terminated=demo.terminated,
        truncated=demo.truncated,
        success=demo.success,
        messages=[dict(message) for message in messages],  # type: ignore[arg-type]
    )
