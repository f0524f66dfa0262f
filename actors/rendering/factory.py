"""Construction of the configured renderer, and demonstrations as tokenized episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.config import RolloutConfig
from actors.errors import RenderError
from actors.rendering.chat import ChatRenderer
from actors.rendering.context import EpisodeContext
from actors.rendering.plain import PlainRenderer
from actors.rendering.renderer import Action, Renderer, Transcript
from actors.rendering.tool_choice import choose_calls
from buffer.episodes.schema import Episode
from envs.toolkit.tool_calls import split_call

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from envs import Demonstration


def make_renderer(
    config: RolloutConfig, tokenizer: PreTrainedTokenizerBase, tools: Sequence[Mapping[str, Any]] = ()
) -> Renderer:
    """Return the renderer of `config`; `auto` means chat if the tokenizer has a chat template. Raises RenderError.

    tools: the JSON schemas of the tools of the environment.
    """
    kind = config.renderer
    if kind == "auto":
        kind = "chat" if tokenizer.chat_template else "plain"
    native = choose_calls(config, tokenizer, tools).native
    if kind == "chat":
        if config.stop_text is not None:
            raise RenderError(
                "`rollout.stop_text` is set, but a chat template ends actions by a token; set rollout.stop_text=null"
            )
        return ChatRenderer(tokenizer, config, native)
    if reason := config.beyond_plain():
        raise RenderError(f"the tokenizer has no chat template: {reason}")
    return PlainRenderer(tokenizer, config.stop_text)


def render_demonstration(demo: Demonstration, renderer: Renderer, context: EpisodeContext) -> Episode:
    """Return a scripted episode with tokens. No policy sampled it: log-probabilities are 0.0 and versions -1."""
    transcript = Transcript(
        renderer, demo.observations[0], context, name=f"demonstration of {demo.env}, seed {demo.seed}"
    )
    actions = [renderer.encode_action(text, context) for text in demo.actions]
    turns = zip(demo.actions, actions, demo.observations[1:], demo.rewards, strict=True)
    for text, tokens, observation, reward in turns:
        transcript.add(_read_back(text, tokens, renderer, context), tokens, observation, reward)
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
        privileged=demo.privileged,
    )


def _read_back(text: str, tokens: list[int], renderer: Renderer, context: EpisodeContext) -> Action:
    """Return the action of a demonstration. Raises RenderError if its call is another one in the policy's format."""
    thought, answer = ("", text) if renderer.thoughts is None else renderer.thoughts.closed(text)
    call = split_call(answer) if renderer.tools else None
    if call is None:
        return Action(answer, {"role": "assistant", "content": answer}, thought=thought)
    read = renderer.read_action(tokens, context)
    if split_call(read.text) != call:
        raise RenderError(
            f"the call {text!r} of a demonstration is read as {read.text!r} in the format of the chat template; set "
            "rollout.tools=json, or rollout.tool_parser to another parser"
        )
    return read._replace(thought=thought)
