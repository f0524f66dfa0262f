"""Episodes with native tool calls: the renderer writes what the chat template writes, and reads back the same."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from actor_cases import CHAT_TEMPLATE, byte_tokenizer
from tool_templates import DEEPSEEK, FORMS, HERMES, LLAMA, MISTRAL, tool_tokenizer

import envs
from actors.config import RolloutConfig
from actors.errors import RenderError
from actors.rendering.context import EpisodeContext, episode_context
from actors.rendering.factory import make_renderer, render_demonstration
from actors.rendering.renderer import Transcript
from actors.rendering.tool_choice import choose_calls
from actors.tools.call_format import CALL_ID
from envs.toolkit.tool_calls import split_call

TIME = datetime(2026, 11, 27, 23, 59)


def demonstration(env_id: str, seed: int = 3) -> envs.Demonstration:
    (demo,) = envs.demonstrate(env_id, episodes=1, skill=1.0, seed=seed, calls="native")
    return demo


def conversation(demo: envs.Demonstration, arguments_as_text: bool) -> list[dict]:
    """Return a demonstration as the messages of a chat with tools."""
    messages = [{"role": "user", "content": demo.observations[0]}]
    for action, observation in zip(demo.actions, demo.observations[1:], strict=True):
        call = split_call(action)
        if call is None:
            messages += [{"role": "assistant", "content": action}, {"role": "user", "content": observation}]
            continue
        args = json.dumps(call.args, ensure_ascii=False) if arguments_as_text else call.args
        made = {"id": CALL_ID, "type": "function", "function": {"name": call.tool, "arguments": args}}
        messages.append({"role": "assistant", "content": "", "tool_calls": [made]})
        messages.append({"role": "tool", "content": observation, "name": call.tool, "tool_call_id": CALL_ID})
    return messages


@pytest.mark.parametrize("env_id", ["support_desk", "tool_use"])
@pytest.mark.parametrize("name", FORMS)
def test_an_episode_is_what_the_template_writes_for_the_whole_conversation(name, env_id):
    tokenizer = tool_tokenizer(FORMS[name])
    tools = envs.spec(env_id).tools
    renderer = make_renderer(RolloutConfig(), tokenizer, tools)
    context = EpisodeContext(TIME, renderer.tools)
    demo = demonstration(env_id)
    episode = render_demonstration(demo, renderer, context)
    text = tokenizer.decode(episode.tokens)

    messages = conversation(demo, FORMS[name] is DEEPSEEK)
    if FORMS[name] is MISTRAL:
        # This template moves the tools to the last message of the user. An episode keeps them where they were.
        first = messages[:1]
        shown = tokenizer.apply_chat_template(first, tools=list(tools), tokenize=False)
        hidden = tokenizer.apply_chat_template(first, tokenize=False)
        expected = shown + tokenizer.apply_chat_template(messages, tokenize=False).removeprefix(hidden)
    else:
        expected = tokenizer.apply_chat_template(
            messages, tools=list(tools), tokenize=False, add_generation_prompt=True, strftime_now=context.strftime_now
        )
    assert text == expected
    actions = [
        renderer.read_action(episode.tokens[start:end].tolist(), context).text
        for start, end in zip(episode.action_start, episode.action_end, strict=True)
    ]
    assert actions == demo.actions
    assert all(int(episode.tokens[end - 1]) in renderer.stop_token_ids for end in episode.action_end)
    # The stored messages hold calls in the environment's form, so that any model can be cloned from them.
    assert [m["content"] for m in episode.messages if m["role"] == "assistant"] == demo.actions
    results = [message["content"] for message in episode.messages if message["role"] == "tool"]
    called = [split_call(action) is not None for action in demo.actions]
    assert results == [said for said, was_call in zip(demo.observations[1:], called, strict=True) if was_call]


def test_a_thinking_model_calls_behind_its_thought_and_its_history_is_rendered_without():
    tokenizer = tool_tokenizer(HERMES)
    tokenizer.add_tokens(["<think>", "</think>"])
    tools = envs.spec("support_desk").tools
    config = RolloutConfig.model_validate({"thoughts": "drop"})
    renderer = make_renderer(config, tokenizer, tools)
    context = EpisodeContext(TIME, renderer.tools)
    transcript = Transcript(renderer, "Customer: Where is it?", context)
    call = '<tool_call>\n{"name": "order", "arguments": {"order": 512}}\n</tool_call>'
    for thought, said, observation in [
        ("<think>\nLook.\n</think>\n\n", call, "Order 512: delivered."),
        ("<think>\nAsk.\n</think>\n\n", "Which item?", "Customer: The mug."),
    ]:
        tokens = tokenizer.encode(f"{thought}{said}<|im_end|>", add_special_tokens=False)
        transcript.add(renderer.read_action(tokens, context), tokens, observation, 0.0)
    made = {"id": CALL_ID, "type": "function", "function": {"name": "order", "arguments": {"order": 512}}}
    messages = [
        {"role": "user", "content": "Customer: Where is it?"},
        {"role": "assistant", "content": "", "tool_calls": [made]},
        {"role": "tool", "content": "Order 512: delivered."},
        {"role": "assistant", "content": "Which item?"},
        {"role": "user", "content": "Customer: The mug."},
    ]
    expected = tokenizer.apply_chat_template(messages, tools=list(tools), tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(transcript.state) == expected


def test_the_system_prompt_and_the_date_stand_before_the_tools():
    tokenizer = tool_tokenizer(LLAMA)
    config = RolloutConfig(system_prompt="You work at a desk.")
    renderer = make_renderer(config, tokenizer, envs.spec("support_desk").tools)
    context = episode_context(config, renderer.tools)
    start = tokenizer.decode(renderer.start("Customer: Hello!", context))
    assert start.index(f"Today Date: {context.time:%d %b %Y}") < start.index("You work at a desk.")
    assert start.index("You work at a desk.") < start.index('"name": "verify"') < start.index("Customer: Hello!")
    # An environment's own system message follows.
    said = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    assert "You work at a desk.\n\nBe kind.<|eot_id|>" in tokenizer.decode(renderer.start(said, context))


def test_a_call_that_the_token_limit_cut_is_rejected_and_its_turn_is_closed():
    tokenizer = tool_tokenizer(LLAMA)
    renderer = make_renderer(RolloutConfig(), tokenizer, envs.spec("support_desk").tools)
    context = EpisodeContext(TIME, renderer.tools)
    whole = renderer.encode_action('{"tool": "order", "args": {"order": 512}}', context)
    transcript = Transcript(renderer, "Customer: Where is it?", context)
    before = list(transcript.state)
    action = renderer.read_action(whole[:20], context)
    assert action.rejected
    transcript.add(action, whole[:20], "Error: the call cannot be parsed.", 0.0)
    assert transcript.state[: len(before) + 20] == before + whole[:20]
    rest = tokenizer.decode(transcript.state[len(before) + 20 :])
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    answer = header.format("user") + "Error: the call cannot be parsed.<|eot_id|>" + header.format("assistant")
    assert rest == "<|eot_id|>" + answer


def test_another_token_may_end_a_call():
    """Llama's calls of built-in tools end with <|eom_id|>, which then must stop the engine."""
    template = LLAMA.replace('{{ "}<|eot_id|>" }}', '{{ "}<|eom_id|>" }}')
    tokenizer = tool_tokenizer(LLAMA)
    tokenizer.chat_template = template
    renderer = make_renderer(RolloutConfig(), tokenizer, envs.spec("support_desk").tools)
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ("<|eot_id|>", "<|eom_id|>")]
    assert set(ends) <= set(renderer.stop_token_ids)
    context = EpisodeContext(TIME, renderer.tools)
    assert renderer.encode_action('{"tool": "order", "args": {"order": 5}}', context)[-1] == ends[1]
    episode = render_demonstration(demonstration("support_desk"), renderer, context)
    assert "<|eom_id|><|eot_id|>" not in tokenizer.decode(episode.tokens)


def test_auto_takes_lines_of_json_where_nothing_else_is_possible_and_says_why():
    tools = envs.spec("support_desk").tools
    tokenizer = byte_tokenizer(chat_template=CHAT_TEMPLATE)
    choice = choose_calls(RolloutConfig(), tokenizer, tools)
    assert (choice.native, choice.reason) == (None, "the chat template shows no tools")
    assert make_renderer(RolloutConfig(), tokenizer, tools).tools == ()
    shown = "{{ tools | tojson if tools }}" + CHAT_TEMPLATE
    choice = choose_calls(RolloutConfig(), byte_tokenizer(chat_template=shown), tools)
    assert choice.native is None
    assert choice.reason.startswith("the chat template does not write the tool calls of an assistant message")
    assert choose_calls(RolloutConfig(), byte_tokenizer(), tools).native is None
    assert choose_calls(RolloutConfig(tools="json"), tool_tokenizer(HERMES), tools).native is None
    assert choose_calls(RolloutConfig(), tool_tokenizer(HERMES), ()).native is None
    # Lines of JSON reach a chat model as text, as those of a base model do.
    renderer = make_renderer(RolloutConfig(tools="json"), tool_tokenizer(HERMES), tools)
    call = '{"tool": "order", "args": {"order": 5}}'
    context = EpisodeContext(TIME, renderer.tools)
    assert renderer.read_action(renderer.encode_action(call, context), context).text == call


@pytest.mark.parametrize(
    ("settings", "tokenizer", "declares", "says"),
    [
        ({"tools": "native"}, tool_tokenizer(HERMES), False, "the environment declares no tools"),
        ({"tool_parser": "hermes"}, byte_tokenizer(), True, "the tokenizer has no chat template"),
        (
            {"tools": "native"},
            byte_tokenizer(chat_template=CHAT_TEMPLATE),
            True,
            "shows no tools; set rollout.tools=auto",
        ),
        (
            {"tool_parser": "pythonic"},
            tool_tokenizer(HERMES),
            True,
            "`rollout.tool_parser` is 'pythonic', and it reads",
        ),
        ({"system_prompt": "Hi"}, byte_tokenizer(), False, "no chat template: `rollout.system_prompt` is set, but the"),
    ],
)
def test_what_is_demanded_and_impossible_is_refused(settings, tokenizer, declares, says):
    tools = envs.spec("support_desk").tools if declares else ()
    with pytest.raises(RenderError) as refused:
        make_renderer(RolloutConfig(**settings), tokenizer, tools)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"tools": "json", "tool_parser": "hermes"}, "with `tools` json nothing is parsed"),
        ({"renderer": "plain", "tools": "native"}, "`renderer` is plain, whose policy calls tools by lines of JSON"),
        ({"renderer": "plain", "tool_parser": "hermes"}, "`renderer` is plain"),
        ({"renderer": "plain", "system_prompt": "Hi"}, "the plain renderer has no system message"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        RolloutConfig(**settings)


def test_a_demonstration_whose_call_would_become_another_one_is_refused():
    """The format of Qwen3-Coder has no quotes, so that an argument cannot contain its own end."""
    renderer = make_renderer(RolloutConfig(), tool_tokenizer(FORMS["qwen3_coder"]), envs.spec("tool_use").tools)
    action = '{"tool": "write", "args": {"path": "a.txt", "text": "a</parameter>b"}}'
    demo = envs.Demonstration("tool_use", "t", 0, ["Task: write.", "Done."], [action], [0.0], True, False, None)
    with pytest.raises(RenderError, match=r"of a demonstration is read as .* set rollout.tools=json"):
        render_demonstration(demo, renderer, EpisodeContext(TIME, renderer.tools))


def test_a_tokenizer_with_a_template_for_tools_alone_uses_it_for_every_turn():
    """Some tokenizers have two templates, `default` and `tool_use`."""
    tokenizer = tool_tokenizer(HERMES)
    tokenizer.chat_template = {
        "default": CHAT_TEMPLATE,
        "tool_use": HERMES.replace("<|im_end|>\n{% endif", "<|im_end|>\n\n{% endif"),
    }
    tools = envs.spec("support_desk").tools
    renderer = make_renderer(RolloutConfig(), tokenizer, tools)
    context = EpisodeContext(TIME, renderer.tools)
    demo = demonstration("support_desk")
    episode = render_demonstration(demo, renderer, context)
    expected = tokenizer.apply_chat_template(
        conversation(demo, False), tools=list(tools), tokenize=False, add_generation_prompt=True
    )
    assert tokenizer.decode(episode.tokens) == expected
