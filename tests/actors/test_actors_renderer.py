"""Rendering: tokens only grow, actions end with a stop token, templates that rewrite history are rejected."""

from datetime import datetime

import numpy as np
import pytest
from actor_cases import CHAT_TEMPLATE, byte_tokenizer

from actors.config import RolloutConfig
from actors.errors import RenderError
from actors.rendering.chat import ChatRenderer
from actors.rendering.context import EpisodeContext
from actors.rendering.factory import make_renderer, render_demonstration
from actors.rendering.plain import PlainRenderer
from buffer.episodes.schema import episodes_to_batch
from buffer.episodes.validation import validate
from envs import Demonstration, demonstrate

NOW = EpisodeContext(datetime(2026, 11, 27, 23, 59))
CHAT = {"chat_template": CHAT_TEMPLATE}


def _play(renderer, observations, actions):
    tokens = renderer.start(observations[0], NOW)
    states = [tokens]
    for action, observation in zip(actions, observations[1:], strict=True):
        tokens = renderer.extend(tokens, action, observation, NOW)
        states.append(tokens)
    return states


@pytest.mark.parametrize("kind", ["plain", "chat"])
def test_each_state_is_a_prefix_of_the_next_and_holds_the_action_as_written(kind):
    renderer = make_renderer(RolloutConfig(renderer=kind), byte_tokenizer(**CHAT))
    actions = [renderer.encode_action(text, NOW) for text in ("Is it alive?", "Is it a dog?")]
    # Tokens that an engine may sample and a tokenizer never produces: invalid UTF-8, and a cut action.
    actions += [[200, 201, 202], [*renderer.encode_action("Is it", NOW)[:-1]]]
    observations = ["Begin.", "Yes.", "No.", "Invalid.", "Over."]
    states = _play(renderer, observations, actions)
    for state, following, action in zip(states, states[1:], actions, strict=False):
        assert following[: len(state)] == state
        assert following[len(state) : len(state) + len(action)] == action


def test_plain_lines_read_as_the_dialogue():
    tokenizer = byte_tokenizer()
    renderer = PlainRenderer(tokenizer)
    action = renderer.encode_action("Is it alive?", NOW)
    cut = action[:-1]
    for written in (action, cut):
        tokens = renderer.extend(renderer.start("Begin.", NOW), written, "Yes.", NOW)
        assert tokenizer.decode(tokens) == "Begin.\nIs it alive?\nYes.\n"
    assert action[-1] in renderer.stop_token_ids
    assert renderer.read_action(action, NOW).text == "Is it alive?"
    assert tokenizer.eos_token_id in renderer.stop_token_ids


def test_every_token_that_holds_a_newline_ends_a_plain_action():
    tokenizer = byte_tokenizer(merges=(("?", "Ċ"),))
    renderer = PlainRenderer(tokenizer)
    merged = tokenizer.convert_tokens_to_ids("?Ċ")
    assert merged in renderer.stop_token_ids
    tokens = renderer.extend(renderer.start("Begin.", NOW), [merged], "Yes.", NOW)
    assert tokenizer.decode(tokens) == "Begin.\n?\nYes.\n"
    # A demonstration's stop token is the single newline, also if the tokenizer would merge it.
    assert renderer.encode_action("Is it?", NOW)[-1] == tokenizer.convert_tokens_to_ids("Ċ")


def test_a_plain_action_ended_by_end_of_text_still_ends_its_line():
    tokenizer = byte_tokenizer()
    renderer = PlainRenderer(tokenizer)
    action = [*tokenizer.encode("No", add_special_tokens=False), tokenizer.eos_token_id]
    tokens = renderer.extend(renderer.start("Begin.", NOW), action, "Yes.", NOW)
    assert tokenizer.decode(tokens, skip_special_tokens=True) == "Begin.\nNo\nYes.\n"
    assert renderer.read_action(action, NOW).text == "No"


def test_beginning_of_text_stands_first_only_where_the_tokenizer_puts_it():
    from tokenizers.processors import TemplateProcessing

    tokenizer = byte_tokenizer()
    assert PlainRenderer(tokenizer).start("Hi", NOW)[0] != tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    renderer = PlainRenderer(tokenizer)
    tokens = renderer.extend(renderer.start("Hi", NOW), renderer.encode_action("Go", NOW), "Yes", NOW)
    assert [i for i, token in enumerate(tokens) if token == 1] == [0]


def test_a_chat_conversation_is_what_the_template_writes():
    tokenizer = byte_tokenizer(**CHAT)
    renderer = make_renderer(RolloutConfig(), tokenizer)
    assert isinstance(renderer, ChatRenderer)
    action = renderer.encode_action("Is it alive?", NOW)
    assert action[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>")
    first = [{"role": "system", "content": "Play."}, {"role": "user", "content": "Begin."}]
    messages = [
        *first,
        {"role": "assistant", "content": "Is it alive?"},
        {"role": "user", "content": "Yes."},
    ]
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    for written in (action, action[:-1]):
        tokens = renderer.extend(renderer.start(first, NOW), written, "Yes.", NOW)
        assert tokenizer.decode(tokens) == expected


def test_a_template_that_drops_earlier_turns_is_refused_and_named():
    forgetful = "{% for message in messages[-2:] %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}"
    with pytest.raises(RenderError, match=r"token \d+"):
        ChatRenderer(byte_tokenizer(chat_template=forgetful), RolloutConfig())


def test_no_template_and_no_stop_token_are_refused():
    with pytest.raises(RenderError, match="no chat template"):
        make_renderer(RolloutConfig(renderer="chat"), byte_tokenizer())
    with pytest.raises(RenderError, match="no special token"):
        ChatRenderer(byte_tokenizer(chat_template=CHAT_TEMPLATE.replace("<|im_end|>", ";")), RolloutConfig())
    with pytest.raises(RenderError, match="one line"):
        make_renderer(RolloutConfig(), byte_tokenizer()).encode_action("two\nlines", NOW)


def test_demonstrations_become_valid_episodes():
    tokenizer = byte_tokenizer()
    renderer = PlainRenderer(tokenizer)
    demos = list(demonstrate("twenty_questions_subset", episodes=3, skill=0.5, seed=5))
    episodes = [render_demonstration(demo, renderer, NOW) for demo in demos]
    validate(episodes_to_batch(episodes))
    for demo, episode in zip(demos, episodes, strict=True):
        actions = [
            renderer.read_action(episode.tokens[a:b].tolist(), NOW).text
            for a, b in zip(episode.action_start, episode.action_end, strict=True)
        ]
        assert actions == demo.actions
        assert episode.ret == demo.ret
        assert set(episode.versions) == {-1}
        assert not np.any(episode.logprobs)
        # The stop token is part of each action, so the policy learns to stop.
        assert all(episode.tokens[end - 1] in renderer.stop_token_ids for end in episode.action_end)


def test_a_demonstration_of_messages_renders_in_both_ways():
    demo = Demonstration(
        "x", "t", 0, [[{"role": "user", "content": "Hi"}], [{"role": "user", "content": "Bye"}]], ["Go"], [0.0],
        True, False, None,
    )  # fmt: skip
    tokenizer = byte_tokenizer(**CHAT)
    plain = render_demonstration(demo, PlainRenderer(tokenizer), NOW)
    assert tokenizer.decode(plain.tokens) == "Hi\nGo\nBye\n"
    chat = render_demonstration(demo, ChatRenderer(tokenizer, RolloutConfig()), NOW)
    assert chat.messages == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Go"},
        {"role": "user", "content": "Bye"},
    ]
