"""Native tool calls: each format is written by its template and read by vLLM's parser; what is no call is rejected."""

from __future__ import annotations

import json
import random

import pytest
from actor_cases import CHAT_TEMPLATE, byte_tokenizer
from tool_templates import FORMS, HERMES, LLAMA, tool_tokenizer

import envs
from actors.errors import RenderError
from actors.tools.call_format import CALL_ID, tool_messages
from actors.tools.native import NativeTools
from actors.tools.parsers import parser_names
from envs.toolkit.tool_calls import Call, split_call

TOOLS = envs.spec("support_desk").tools
CALL = Call("order", {"order": 512})


def native(template: str, parser: str = "auto", tools=TOOLS, tokenizer=None) -> NativeTools:
    tokenizer = tokenizer or tool_tokenizer(template)

    def render(messages, generation):
        try:
            return tokenizer.apply_chat_template(
                messages, tools=list(tools), tokenize=False, add_generation_prompt=generation
            )
        except TypeError as error:
            raise RenderError(str(error)) from error

    return NativeTools(render, tokenizer, tools, parser)


@pytest.mark.parametrize("name", FORMS)
def test_auto_takes_the_parser_that_reads_what_the_template_writes(name):
    tools = native(FORMS[name])
    assert tools.parser == name
    for call in (
        CALL,
        Call("address", {"order": 7, "address": '5 "Hill" Road, {Bath}\nUpper floor'}),
        Call("verify", {"email": "zoë@mail.com", "zip": "0123"}),
    ):
        read = tools.read(tools.format.write(call))
        assert split_call(read.text) == call
        assert not read.rejected


def test_each_format_is_the_one_of_its_family():
    written = {name: native(template).format.write(CALL) for name, template in FORMS.items()}
    assert written == {
        "hermes": '<tool_call>\n{"name": "order", "arguments": {"order": 512}}\n</tool_call>',
        "llama3_json": '{"name": "order", "parameters": {"order": 512}}',
        "mistral": f'[TOOL_CALLS][{{"name": "order", "arguments": {{"order": 512}}, "id": "{CALL_ID}"}}]',
        "qwen3_coder": "<tool_call>\n<function=order>\n<parameter=order>\n512\n</parameter>\n</function>\n</tool_call>",
        "deepseek_v31": '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>order<｜tool▁sep｜>{"order": 512}'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "glm45": "<tool_call>order\n<arg_key>order</arg_key>\n<arg_value>512</arg_value>\n</tool_call>",
    }


@pytest.mark.parametrize("name", FORMS)
def test_what_is_meant_as_a_call_and_is_none_is_rejected_with_the_reason(name):
    tools = native(FORMS[name])
    written = tools.format.write(CALL)
    faults = {
        f"Let me look. {written}": "text beside the call: write the call alone",
        f"{written} Done.": "text beside the call: write the call alone",
        # The line of JSON is the form of base models. Two forms for one call would divide what the policy learns.
        '{"tool": "order", "args": {"order": 512}}': "the call cannot be parsed",
        "{": "the call cannot be parsed",
    }
    if name != "llama3_json":  # bare JSON twice in a row is no JSON
        faults[written + written] = "several calls at once: make one call at a time"
    if name not in ("qwen3_coder", "glm45"):  # whose arguments may be any text
        broken = written.replace("512", "[")
        faults[broken] = tools.read(broken).text.split('"')[3]
    for text, reason in faults.items():
        read = tools.read(text)
        assert json.loads(read.text) == {"rejected_call": reason}
        assert read.rejected
        # The history holds what the policy wrote, not a call.
        assert read.message == {"role": "assistant", "content": text}
    forged = tools.read(tools.format.write(Call("address", {"order": 5, "address": "Hill <eos> Road"})))
    assert forged.rejected or "<eos>" not in forged.text  # vLLM's parser of Qwen3-Coder drops control tokens
    unknown = tools.read(written.replace("order", "oder"))
    assert unknown.rejected
    if name != "glm45":  # whose parser refuses an unknown tool by itself
        assert split_call(unknown.text).tool == "oder"
    for speech in ("Which order is it?", "", "1 < 2", "[sighs] Which one?"):
        assert tools.read(speech)[:1] == (speech,)
        assert not tools.read(speech).rejected


def test_a_rejected_call_reaches_the_desk_as_an_error_that_costs_a_turn():
    tools, env = native(HERMES), envs.make("support_desk", calls="native")
    env.reset(seed=0)
    observation, reward, terminated, _, info = env.step(tools.read("<tool_call>{bad").text)
    assert observation == "Error: the call cannot be parsed."
    assert (reward, terminated, info["invalid_action"]) == (-0.02, False, True)


@pytest.mark.parametrize("name", FORMS)
def test_the_text_behind_a_call_is_that_of_the_whole_conversation(name):
    tokenizer = tool_tokenizer(FORMS[name])
    tools = native(FORMS[name], tokenizer=tokenizer)
    message = tools.read(tools.format.write(CALL)).message
    answer = tool_messages(message, "Order 512: delivered.")
    assert answer == [
        {"role": "tool", "content": "Order 512: delivered.", "name": "order", "tool_call_id": CALL_ID},
    ]
    user = {"role": "user", "content": "Where is it?"}
    render = {"tools": list(TOOLS), "tokenize": False}
    first = tokenizer.apply_chat_template([user], add_generation_prompt=True, **render)
    whole = tokenizer.apply_chat_template([user, message, *answer], add_generation_prompt=True, **render)
    assert first + tools.format.opening + tools.format.write(CALL) + tools.format.behind(answer) == whole


def test_the_result_of_a_call_names_the_id_that_the_model_wrote():
    tools = native(FORMS["mistral"])
    read = tools.read('[TOOL_CALLS][{"name": "order", "arguments": {"order": 5}, "id": "a1B2c3D4e"}]')
    assert read.message["tool_calls"][0]["id"] == "a1B2c3D4e"
    assert '"call_id": "a1B2c3D4e"' in tools.format.behind(tool_messages(read.message, "Late."))
    # An id that the template would refuse.
    read = tools.read('[TOOL_CALLS][{"name": "order", "arguments": {"order": 5}, "id": "x"}]')
    assert read.message["tool_calls"][0]["id"] == CALL_ID


def test_messages_of_the_environment_keep_their_roles_behind_a_call():
    message = native(HERMES).read(native(HERMES).format.write(CALL)).message
    said = [{"role": "tool", "content": "Late."}, {"role": "user", "content": "And now?"}]
    named = {"role": "tool", "content": "Late.", "name": "order", "tool_call_id": CALL_ID}
    assert tool_messages(message, said) == [named, said[1]]


def test_special_tokens_before_a_call_are_no_text_beside_it():
    tools = native(LLAMA)
    read = tools.read('<|python_tag|>{"name": "order", "parameters": {"order": 512}}')
    assert split_call(read.text) == CALL


def test_wrong_parsers_and_templates_are_refused():
    with pytest.raises(
        RenderError, match=r"`rollout.tool_parser` is 'hermse', and vLLM has no such parser; it has apert"
    ):
        native(HERMES, "hermse")
    with pytest.raises(RenderError, match="'mistral' does not fit the tokenizer"):
        native(HERMES, "mistral")
    with pytest.raises(
        RenderError, match=r"`rollout.tool_parser` is 'pythonic', and it reads no call from '<tool_call>"
    ):
        native(HERMES, "pythonic")
    with pytest.raises(RenderError, match="does not write the tool calls"):
        native(CHAT_TEMPLATE, tokenizer=byte_tokenizer(chat_template=CHAT_TEMPLATE))
    unread = HERMES.replace('"name": "{{', '"tool": "{{')
    with pytest.raises(RenderError, match=r"no tool parser of vLLM reads the calls"):
        native(unread, tokenizer=_with(unread))
    assert {"hermes", "llama3_json", "mistral"} <= set(parser_names())


def _with(template: str):
    tokenizer = tool_tokenizer(HERMES)
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("name", FORMS)
def test_any_text_is_read_and_reaches_the_environment(name):
    """Texts that are almost a call, and any characters, give speech, a call or a rejected call, and never an error."""
    tools, env = native(FORMS[name]), envs.make("support_desk", calls="native", max_turns=10**6)
    env.reset(seed=0)
    rng = random.Random(name)
    written = tools.format.write(Call("verify", {"email": "a@b.com", "zip": "0123"}))
    pieces = [
        written,
        tools.format.head,
        tools.format.tail,
        "{",
        "}}",
        '"',
        "\ud800",
        "\x00",
        "é",
        "\\",
        "<|im_end|>",
        "[" * 900,
    ]
    for _ in range(300):
        text = "".join(rng.choices(pieces, k=rng.randrange(4)))
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(text) + 1)
            text = text[:at] + rng.choice(pieces[1:]) * rng.randrange(2) + text[at + rng.randrange(5) :]
        read = tools.read(text)
        assert read.text == text or split_call(read.text) or json.loads(read.text).keys() == {"rejected_call"}
        terminated = env.step(read.text)[2]
        if terminated:
            env.reset(seed=0)
