"""Thoughts: what the environment sees of an action, and the budget of thoughts in the inline sampler."""

import asyncio
from datetime import datetime

import numpy as np
import pytest
import torch
from actor_cases import CHAT_TEMPLATE, byte_tokenizer, load_model, reference_logprobs
from chat_templates import QWEN3, R1
from thinking_cases import thinking_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from actors.config import EngineConfig, RolloutConfig, SamplingConfig
from actors.errors import RenderError
from actors.inline.engine import InlineEngine
from actors.rendering.context import EpisodeContext
from actors.rendering.factory import make_renderer, render_demonstration
from actors.rollout.action_request import ActionRequest
from envs import Demonstration

NOW = EpisodeContext(datetime(2026, 11, 27))


def _renderer(template, **config):
    return make_renderer(RolloutConfig.model_validate(config), thinking_tokenizer(template))


def _read(renderer, text, end="<|im_end|>"):
    tokenizer = thinking_tokenizer(None)
    return renderer.read_action(tokenizer.encode(text + end, add_special_tokens=False), NOW)


@pytest.mark.parametrize(
    ("template", "written", "text", "thought", "endless"),
    [
        (QWEN3, "<think>\nhm\n</think>\n\nGo north", "Go north", "<think>\nhm\n</think>\n\n", False),
        (QWEN3, "Go north", "Go north", "", False),
        (QWEN3, "<think>\nhm", "", "<think>\nhm", True),
        (QWEN3, "<think></think>a</think>b", "a</think>b", "<think></think>", False),
        (R1, "hm\n</think>\n\nGo north", "Go north", "hm\n</think>\n\n", False),
        (R1, "Go north", "", "Go north", True),
        (CHAT_TEMPLATE, "<think>hm</think>Go", "Go", "<think>hm</think>", False),  # the tokenizer has the markers
    ],
)
def test_the_environment_sees_an_action_without_its_thought(template, written, text, thought, endless):
    read = _read(_renderer(template), written)
    assert (read.text, read.thought, read.endless) == (text, thought, endless)
    assert read.message == {"role": "assistant", "content": text}
    assert _read(_renderer(template), written, end="").text == text


def test_models_without_markers_have_no_thoughts_unless_they_are_configured():
    config = RolloutConfig(renderer="chat")
    tokenizer = byte_tokenizer(chat_template=CHAT_TEMPLATE)
    action = tokenizer.encode("(hm) Go", add_special_tokens=False)
    assert make_renderer(config, tokenizer).read_action(action, NOW).text == "(hm) Go"
    config = RolloutConfig(thought_markers=("(", ")"))
    assert make_renderer(config, tokenizer).read_action(action, NOW).text == "Go"
    for wrong in ({"thoughts": "drop"}, {"sampling": {"thought_tokens": 9}}):
        with pytest.raises(RenderError, match=r"marker of a thought's end.*rollout\.thought_markers"):
            make_renderer(RolloutConfig.model_validate(wrong), tokenizer)
        with pytest.raises(RenderError, match="plain renderer knows no thoughts"):
            make_renderer(RolloutConfig.model_validate(wrong), byte_tokenizer())
    wrong = {"thought_markers": ["<a>", "</a>"], "sampling": {"thought_tokens": 9}}
    with pytest.raises(RenderError, match="'</a>', as several tokens"):
        make_renderer(RolloutConfig.model_validate(wrong), tokenizer)


def test_a_demonstration_keeps_its_thoughts_and_ends_those_that_the_prompt_opens():
    actions = ["<think>hm</think>\n\nGo", "Stay"]
    demo = Demonstration("x", "t", 0, ["Begin.", "On.", "Over."], actions, [0.0, 1.0], True, False, None)
    for template, written in [
        (QWEN3, ["<think>hm</think>\n\nGo", "Stay"]),
        (R1, ["<think>hm</think>\n\nGo", "</think>\n\nStay"]),
    ]:
        renderer = _renderer(template)
        episode = render_demonstration(demo, renderer, NOW)
        parts = [episode.tokens[a:b].tolist() for a, b in zip(episode.action_start, episode.action_end, strict=True)]
        tokenizer = thinking_tokenizer(template)
        assert [tokenizer.decode(part) for part in parts] == [text + "<|im_end|>" for text in written]
        assert [renderer.read_action(part, NOW).text for part in parts] == ["Go", "Stay"]
        assert [m["content"] for m in episode.messages if m["role"] == "assistant"] == actions


BUDGET = SamplingConfig(temperature=4.0, max_tokens=2, thought_tokens=4)
STATE = [3, 1, 4]


def _legal(action, room=99):
    """Check an action against its budget: token 2 ends it, token 3 ends its thought."""
    until = action.index(3) + 1 if 3 in action else len(action)
    assert until <= min(4, room)
    assert len(action) <= min(until + 2 if 3 in action else 4, room)
    assert 2 not in action[:-1]
    if action[-1] != 2:
        assert len(action) == min(until + 2 if 3 in action else 4, room)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    torch.manual_seed(3)
    sizes = {"vocab_size": 6, "hidden_size": 16, "intermediate_size": 32, "max_position_embeddings": 8}
    config = LlamaConfig(num_hidden_layers=2, num_attention_heads=2, initializer_range=0.5, **sizes)
    folder = tmp_path_factory.mktemp("small")
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_a_thought_has_a_budget_of_its_own_and_every_token_is_sampled(small):
    engine = InlineEngine(str(small), EngineConfig(), stop_token_ids=[2], seed=0, seats=50, thought_end=3)
    model = load_model(small)
    prompts = [STATE, STATE[:1]]
    fresh = engine.act(ActionRequest.of([np.array(p, np.int32) for p in prompts], 200, True), BUDGET)

    async def play():
        async def one():
            with engine.seat() as seat:
                return await seat.generate(STATE, 1, BUDGET)

        return await asyncio.gather(*(one() for _ in range(50)))

    found = [(prompts[k // 200], fresh.action(k)) for k in range(400)]
    found += [(STATE, action) for action in asyncio.run(play())]
    kinds = set()
    for prompt, action in found:
        tokens = action.tokens.tolist()
        _legal(tokens, room=8 - len(prompt))
        kinds.add((3 in tokens, tokens[-1] == 2, len(tokens)))
        expected = reference_logprobs(model, [*prompt, *tokens], 4.0)[len(prompt) - 1 :]
        np.testing.assert_allclose(action.logprobs, expected, atol=1e-4)
    assert {(False, False, 4), (True, False, 6), (True, True, 5), (False, True, 1)} <= kinds


def test_a_model_without_an_end_of_thoughts_ignores_the_budget(small):
    engine = InlineEngine(str(small), EngineConfig(), stop_token_ids=[2], seed=0, seats=1)
    fresh = engine.act(ActionRequest.of([np.array(STATE, np.int32)], 50, True), BUDGET)
    assert np.diff(fresh.offsets).max() == BUDGET.max_tokens
