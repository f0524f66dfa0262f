"""Thoughts before native tool calls: the call is read behind the thought, and dropped thoughts leave the calls."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_actors_native import TIME, conversation, demonstration
from tool_templates import HERMES, LLAMA, tool_tokenizer

import envs
from actors.config import RolloutConfig
from actors.rendering.context import EpisodeContext
from actors.rendering.factory import make_renderer, render_demonstration

THOUGHT = "<think>hm</think>\n\n"


@pytest.mark.parametrize("thoughts", ["keep", "drop"])
@pytest.mark.parametrize("template", [HERMES, LLAMA], ids=["hermes", "llama"])
def test_a_call_follows_a_thought(template: str, thoughts: str) -> None:
    tokenizer = tool_tokenizer(template)
    tokenizer.add_tokens(["<think>", "</think>"])
    tools = envs.spec("support_desk").tools
    renderer = make_renderer(RolloutConfig.model_validate({"thoughts": thoughts}), tokenizer, tools)
    assert renderer.tools
    context = EpisodeContext(TIME, renderer.tools)
    demo = demonstration("support_desk")
    thinking = replace(demo, actions=[THOUGHT + action for action in demo.actions])
    episode = render_demonstration(thinking, renderer, context)
    spans = list(zip(episode.action_start.tolist(), episode.action_end.tolist(), strict=True))
    read = [renderer.read_action(episode.tokens[start:end].tolist(), context) for start, end in spans]
    assert [action.text for action in read] == demo.actions
    assert {action.thought for action in read} == {THOUGHT}
    assert not any(action.rejected or action.endless for action in read)
    assert [m["content"] for m in episode.messages if m["role"] == "assistant"] == thinking.actions
    assert (len(episode.state_start) > 0) == (thoughts == "drop")
    if thoughts == "drop":
        messages = conversation(demo, arguments_as_text=False)
        for turn in range(episode.turns + 1):
            served = tokenizer.apply_chat_template(
                messages[: 2 * turn + 1],
                tools=list(tools),
                tokenize=False,
                add_generation_prompt=True,
                strftime_now=context.strftime_now,
            )
            assert tokenizer.decode(episode.state(turn)) == served
