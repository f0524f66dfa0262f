"""Chat templates of published models: thoughts, dates, system prompts, alternation, stripping."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
from actor_cases import CHAT_TEMPLATE, byte_tokenizer
from chat_templates import DEFAULT_SYSTEM, GEMMA, LLAMA3, MISTRAL, QWEN3, R1

from actors.config import RolloutConfig
from actors.errors import RenderError
from actors.rendering import template as chat_template
from actors.rendering.chat import ChatRenderer
from actors.rendering.context import EpisodeContext

NOW = EpisodeContext(datetime(2026, 11, 27, 23, 59, 59))
SYSTEM = EpisodeContext(NOW.time, system_prompt="Play well.")


def _renderer(template):
    tokenizer = byte_tokenizer(chat_template=template)
    return tokenizer, ChatRenderer(tokenizer, RolloutConfig())


def _played(renderer, context, first, *turns):
    tokens = renderer.start(first, context)
    for action, observation in turns:
        tokens = renderer.extend(tokens, renderer.encode_action(action, context), observation, context)
    return tokens


def _template(tokenizer, messages, context=NOW):
    return tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, strftime_now=context.strftime_now
    )


def _user(content):
    return {"role": "user", "content": content}


def _assistant(content):
    return {"role": "assistant", "content": content}


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, QWEN3, LLAMA3, GEMMA, DEFAULT_SYSTEM])
def test_a_conversation_without_thoughts_is_what_the_template_writes(template):
    tokenizer, renderer = _renderer(template)
    tokens = _played(renderer, NOW, " Begin. ", ("Is it alive?", "Yes.\n"), ("A dog?", "No."))
    messages = [_user(" Begin. "), _assistant("Is it alive?"), _user("Yes.\n"), _assistant("A dog?"), _user("No.")]
    assert tokenizer.decode(tokens) == _template(tokenizer, messages)


@pytest.mark.parametrize("template", [QWEN3, R1])
def test_thoughts_that_the_template_would_drop_stay_as_written(template):
    tokenizer, renderer = _renderer(template)
    action = renderer.encode_action("<think>hm</think>\n\nIs it alive?", NOW)
    state = renderer.start("Begin.", NOW)
    following = renderer.extend(state, action, "Yes.", NOW)
    assert following[: len(state) + len(action)] == [*state, *action]
    opening = "<think>\n" if template == R1 else ""
    after = f"\n<|im_start|>user\nYes.<|im_end|>\n<|im_start|>assistant\n{opening}"
    assert tokenizer.decode(following[len(state) + len(action) :]) == after
    assert (
        "think"
        not in _template(tokenizer, [_user("a"), _assistant("<think>hm</think>b"), _user("c")]).partition(
            "<|im_start|>assistant\n<think>\n"
        )[0]
    )


def test_a_template_reads_the_time_of_its_episode():
    tokenizer, renderer = _renderer(LLAMA3)
    for context in (NOW, EpisodeContext(datetime(2026, 11, 28))):
        text = tokenizer.decode(_played(renderer, context, "Begin.", ("Go", "On."), ("Go", "Over.")))
        assert text.count("Today Date") == 1
        assert context.time.strftime("%d %b %Y %H:%M:%S.%f") in text


def test_two_user_messages_become_one_where_roles_must_alternate():
    tokenizer, renderer = _renderer(MISTRAL)
    tokens = _played(renderer, NOW, [_user("Rules."), _user("Begin.")], ("Go", [_user("One."), _user("Two.")]))
    messages = [_user("Rules.\n\nBegin."), _assistant("Go"), _user("One.\n\nTwo.")]
    assert tokenizer.decode(tokens) == _template(tokenizer, messages)
    tokenizer, renderer = _renderer(QWEN3)  # accepts both
    assert tokenizer.decode(renderer.start([_user("Rules."), _user("Begin.")], NOW)).count("user") == 2


def test_a_system_prompt_begins_the_episode_in_every_template():
    for template, expected in [
        (QWEN3, "<|im_start|>system\nPlay well.<|im_end|>\n<|im_start|>user\nBegin.<|im_end|>\n"),
        (GEMMA, "<bos><|im_start|>user\nPlay well.\n\nBegin.<|im_end|>\n"),
        (DEFAULT_SYSTEM, "<|im_start|>system\nPlay well.<|im_end|>\n<|im_start|>user\nBegin.<|im_end|>\n"),
        (MISTRAL, "<bos><|im_start|>Play well.\n\nBegin.<|im_start|>"),
    ]:
        tokenizer, renderer = _renderer(template)
        text = tokenizer.decode(_played(renderer, SYSTEM, "Begin.", ("Go", "On.")))
        assert text.startswith(expected)
        assert text.count("Play well.") == 1
        assert "You are helpful." not in text


def test_a_later_system_message_becomes_a_user_message_where_the_template_refuses_it():
    tokenizer, renderer = _renderer(MISTRAL)
    tokens = _played(renderer, NOW, "Begin.", ("Go", [{"role": "system", "content": "Hurry."}, _user("On.")]))
    assert tokenizer.decode(tokens).endswith("Go<eos><|im_start|>Hurry.\n\nOn.<|im_start|>")


def test_a_template_that_fails_is_refused_with_its_own_reason():
    with pytest.raises(RenderError, match=r"rejects messages of roles \['user'\].*I refuse"):
        _renderer("{{ raise_exception('I refuse') }}")
    with pytest.raises(RenderError, match=r"rejects messages.*UndefinedError"):
        _renderer("{{ messages[0].content.unknown.method() }}")
    _, renderer = _renderer(QWEN3)
    with pytest.raises(RenderError, match="role"):
        renderer.start([{"role": "user"}], NOW)


ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("loops", "said"),
    [
        ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
        (ENDLESS, r"more than 0.05 s of processor time for messages of roles \['user'\]"),
    ],
)
def test_a_template_that_loops_without_end_is_refused(monkeypatch, loops, said):
    monkeypatch.setattr(chat_template, "LIMIT_S", 0.05)
    with pytest.raises(RenderError, match=said):
        _renderer(loops + CHAT_TEMPLATE)


def test_a_template_that_loops_at_one_observation_fails_that_episode_only(monkeypatch):
    """A worker renders in a thread that is not the main one, where no signal arrives."""
    _, renderer = _renderer("{% if 'loop' in messages[-1].content %}" + ENDLESS + "{% endif %}" + CHAT_TEMPLATE)
    monkeypatch.setattr(chat_template, "LIMIT_S", 0.05)
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(RenderError, match="processor time"):
            pool.submit(renderer.start, "loop", NOW).result()
        assert pool.submit(renderer.start, "Begin.", NOW).result() == renderer.start("Begin.", NOW)
