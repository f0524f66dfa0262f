"""Ends of lines and actions in tokenizers without a plain token for the newline."""

import asyncio
from datetime import datetime

import numpy as np
import pytest
from actor_cases import byte_tokenizer, load_model, reference_logprobs, save_model
from test_actors_control_tokens import sentencepiece_bpe
from tokenizers import normalizers

from actors.config import EngineConfig, RolloutConfig, SamplingConfig
from actors.errors import RenderError
from actors.inline.engine import InlineEngine
from actors.rendering.context import EpisodeContext
from actors.rendering.factory import make_renderer
from actors.rendering.plain import PlainRenderer
from actors.rollout.action_request import ActionRequest

NOW = EpisodeContext(datetime(2026, 11, 27))


def without_newline(**kwargs):
    """Return a tokenizer that encodes a newline as two tokens, which it does not decode to a newline."""
    tokenizer = byte_tokenizer(**kwargs)
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\n", "\\n")
    return tokenizer


def test_a_newline_behind_a_space_of_the_tokenizer_ends_actions():
    """As in Llama 2, whose tokenizer puts a space before each text, and encodes the newline as a byte."""
    tokenizer = sentencepiece_bpe()
    assert len(tokenizer.encode("\n", add_special_tokens=False)) > 1
    renderer = PlainRenderer(tokenizer)
    assert renderer.warning is None
    action = renderer.encode_action("Hello world", NOW)
    assert action[-1] in renderer.stop_token_ids
    tokens = renderer.extend(renderer.start("this is", NOW), action, "a small text.", NOW)
    assert tokens == tokenizer.encode("this is\nHello world\na small text.\n", add_special_tokens=False)
    assert renderer.read_action(action, NOW).text == "Hello world"
    cut = renderer.extend(renderer.start("this is", NOW), action[:-1], "a small text.", NOW)
    assert cut == tokens


def test_without_a_newline_a_stop_text_is_offered_and_ends_actions_and_lines():
    tokenizer = without_newline()
    renderer = make_renderer(RolloutConfig(), tokenizer)
    assert "rollout.stop_text" in (renderer.warning or "")
    assert renderer.stop_token_ids == [tokenizer.eos_token_id]
    renderer = make_renderer(RolloutConfig(stop_text=";;"), tokenizer)
    assert renderer.warning is None
    action = renderer.encode_action("Go", NOW)
    assert renderer.ends(action)
    assert not renderer.ends(action[:-1])
    for written in (action, action[:-2], [*action, *tokenizer.encode("no", add_special_tokens=False)]):
        text = tokenizer.decode(renderer.extend(renderer.start("Begin.", NOW), written, "Yes.", NOW))
        assert text.replace("no", "") == "Begin.;;Go;;Yes.;;"
        assert renderer.read_action(written, NOW).text == "Go"
    with pytest.raises(RenderError, match="contains ';;', which ends it"):
        renderer.encode_action("a;;b", NOW)


def test_stop_texts_that_cannot_be_used_are_refused():
    with pytest.raises(RenderError, match="has a token for the newline"):
        make_renderer(RolloutConfig(stop_text=";"), byte_tokenizer())
    chat = byte_tokenizer(chat_template="{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}")
    with pytest.raises(RenderError, match="a chat template ends actions by a token"):
        make_renderer(RolloutConfig(stop_text=";"), chat)
    tokenizer = without_newline()
    tokenizer.eos_token = None
    with pytest.raises(RenderError, match=r"no token can end an action; set rollout\.stop_text"):
        make_renderer(RolloutConfig(), tokenizer)
    assert make_renderer(RolloutConfig(stop_text=";"), tokenizer).stop_token_ids == []


def test_the_inline_sampler_ends_actions_at_a_stop_text(tmp_path):
    folder = save_model(tmp_path)
    renderer = make_renderer(RolloutConfig(stop_text="e"), without_newline())
    sampling = SamplingConfig(max_tokens=60)
    state = [70, 80, 90]
    engine = InlineEngine(str(folder), EngineConfig(), stop_token_ids=[2], seed=0, seats=40, ends=renderer.ends)
    fresh = engine.act(ActionRequest.of([np.array(state, np.int32)], 60, True), sampling)

    async def play():
        async def one():
            with engine.seat() as seat:
                return await seat.generate(state, 1, sampling)

        return await asyncio.gather(*(one() for _ in range(40)))

    model = load_model(folder)
    actions = [fresh.action(k) for k in range(60)] + asyncio.run(play())
    stopped = 0
    for action in actions:
        tokens = action.tokens.tolist()
        assert not any(renderer.ends(tokens[:n]) for n in range(1, len(tokens)))
        stopped += renderer.ends(tokens)
        assert renderer.ends(tokens) or tokens[-1] == 2 or len(tokens) == 60
        expected = reference_logprobs(model, state + tokens, 1.0)[len(state) - 1 :]
        np.testing.assert_allclose(action.logprobs, expected, atol=1e-4)
    assert stopped > 5
