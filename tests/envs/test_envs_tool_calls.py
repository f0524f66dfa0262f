"""Tool calls as text: which are parsed, which are refused, and the reasons."""

from __future__ import annotations

import json

import pytest

import envs
from envs.registry import native_calls
from envs.support_desk.tools import TOOLS as DESK_TOOLS
from envs.tool_use.tools import TOOLS as OFFICE_TOOLS
from envs.toolkit.tool_calls import (
    MAX_ACTION,
    Call,
    Parameter,
    Tool,
    Toolbox,
    ToolError,
    is_call,
    split_call,
    write_call,
    write_rejected,
)

TOOLS_OF = {"support_desk": DESK_TOOLS, "tool_use": OFFICE_TOOLS}

SEND = Tool(
    "send",
    "Send a thing.",
    {
        "thing": Parameter("What.", max_length=10),
        "number": Parameter("How many.", "integer"),
        "by": Parameter("By what.", choices=("air", "sea"), optional=True),
    },
)
TOOLS = Toolbox((SEND, Tool("wait", "Do nothing.", {})))


@pytest.mark.parametrize(
    "action",
    [
        '{"tool": "send", "args": {"thing": "cup", "number": 2}}',
        '{"name": "send", "arguments": {"thing": "cup", "number": 2}}',
        ' \n{"args":{"number":2,"thing":"cup"},"tool":"send"}\t',
    ],
)
def test_forms_of_a_call(action):
    assert is_call(action)
    assert TOOLS.read(action) == Call("send", {"thing": "cup", "number": 2})


def test_a_written_call_is_parsed_back():
    for args in [{"thing": 'a "b"\n', "number": -1}, {"thing": "Straße", "number": 2**53, "by": "sea"}]:
        action = write_call("send", **args)
        assert "\n" not in action
        assert TOOLS.read(action) == Call("send", args)
    assert TOOLS.read('{"tool": "wait"}') == TOOLS.read(write_call("wait")) == Call("wait", {})


@pytest.mark.parametrize(
    ("action", "says"),
    [
        ("", "not a call"),
        ('{"tool": "send", "args": {"thing": "cu', "not a call"),
        ("{'tool': 'wait'}", "not a call"),
        ('["wait"]', "not a call"),
        ('{"tool": "wait", "args": []}', "not a call"),
        ('{"tool": ["wait"]}', "not a call"),
        ('{"tool": "wait", "more": 1}', "not a call"),
        ('{"args": {}}', "not a call"),
        ("[" * MAX_ACTION, "not a call"),
        ('{"tool": ' * 400, "not a call"),
        ('{"tool": "wait"}' + " " * MAX_ACTION, f"longer than {MAX_ACTION} characters"),
        ('{"tool": "wait", "args": {"a": ' + "9" * 3000 + "}}", "wait takes wait(), not 'a'"),
        ('{"tool": "sent"}', "no tool 'sent': did you mean 'send'?"),
        ('{"tool": "\\ud800\\u0000", "args": {}}', r"no tool '\ud800\x00'"),
        (write_call("send", thing="cup"), "send needs number"),
        (write_call("send", thing="cup", number=1, to="me"), "send takes send(thing, number, by), not 'to'"),
        (write_call("send", thing="cup", number="1"), "number must be an integer"),
        (write_call("send", thing="cup", number=True), "number must be an integer"),
        (write_call("send", thing="cup", number=2**53 + 1), "number must be an integer"),
        ('{"tool": "send", "args": {"thing": "cup", "number": 1e400}}', "number must be an integer"),
        ('{"tool": "send", "args": {"thing": "cup", "number": NaN}}', "not a call"),
        (write_call("send", thing=None, number=1), "thing must be a string"),
        (write_call("send", thing="c" * 11, number=1), "thing is longer than 10 characters"),
        (write_call("send", thing="cup", number=1, by="rail"), "by must be one of air, sea"),
        *[
            (json.dumps({"tool": "send", "args": {"thing": text, "number": 1}}), "thing has a character that no text")
            for text in ("\x00", "a\x1b[2J", "\ud800", "ü\x85", "a\ttab")
        ],
    ],
)
def test_other_text_is_refused_with_the_fault(action, says):
    with pytest.raises(ToolError) as refused:
        TOOLS.read(action)
    assert says in str(refused.value)
    assert len(str(refused.value)) < 200
    assert str(refused.value).isprintable()


def test_plain_speech_is_not_a_call():
    assert [is_call(text) for text in ("", "Hello!", 'say {"tool": "wait"}', "1")] == [False] * 4


def test_the_schemas_are_those_of_chat_templates():
    function = SEND.schema["function"]
    assert SEND.schema["type"] == "function"
    assert function["name"] == "send"
    assert function["parameters"]["required"] == ["thing", "number"]
    assert function["parameters"]["properties"]["by"] == {
        "type": "string",
        "description": "By what.",
        "enum": ["air", "sea"],
    }
    assert json.loads(json.dumps(TOOLS.schemas)) == list(TOOLS.schemas)
    assert TOOLS.describe() == ('Call a tool by {"tool": NAME, "args": {...}}. Tools: send(thing, number, by), wait().')


def test_a_rejected_call_is_refused_with_its_reason():
    action = write_rejected("text beside the call: write the call alone")
    assert is_call(action)
    assert split_call(action) is None
    with pytest.raises(ToolError, match=r"^text beside the call: write the call alone$"):
        TOOLS.read(action)
    # A policy may write the line itself; its text must not reach the log of a terminal as it is.
    for reason in ("\x1b[2J", "ü", "x" * 201, 5):
        with pytest.raises(ToolError, match="not a call"):
            TOOLS.read(json.dumps({"rejected_call": reason}))


def test_a_call_of_any_tool_is_split():
    assert split_call(write_call("fly", tool="x", to=[1])) == Call("fly", {"tool": "x", "to": [1]})
    assert split_call('{"name": "wait"}') == Call("wait", {})
    assert [split_call(text) for text in ("", "wait", "[]", '{"tool": 1}', '{"tool": "a", "b": 1}')] == [None] * 5


def test_texts_for_native_calls_do_not_explain_the_lines_of_json():
    native = TOOLS.written("native")
    assert native.describe() == ""
    assert native.read(write_call("wait")) == Call("wait", {})
    with pytest.raises(ToolError, match=r"^not a call of a tool$"):
        native.read("Hello!")


@pytest.mark.parametrize("env_id", ["support_desk", "tool_use"])
def test_an_environment_for_native_calls_shows_the_task_without_the_lines_of_json(env_id):
    assert native_calls(env_id, {"level": 1}) == {"calls": "native", "level": 1}
    assert native_calls(env_id, {"calls": "json"}) == {"calls": "json"}
    assert native_calls("maze", {}) == {}
    native, lines = envs.make(env_id, calls="native"), envs.make(env_id)
    first, full = native.reset(seed=3)[0], lines.reset(seed=3)[0]
    assert '{"tool"' in full
    assert '{"tool"' not in first
    assert full.replace(TOOLS_OF[env_id].describe(), "").split() == first.split()
    answer = native.step('{"rejected_call": "the call cannot be parsed"}')
    assert answer[0] == "Error: the call cannot be parsed."
    assert answer[4]["invalid_action"]
    with pytest.raises(envs.EnvArgumentError, match="calls is 'xml', must be one of"):
        envs.make(env_id, calls="xml")
