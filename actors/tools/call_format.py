"""How a chat template writes a tool call: the text of a call, and the marks by which a call begins and ends."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from actors.errors import RenderError
from envs.base import Message, Observation
from envs.toolkit.tool_calls import Call

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CALL_ID = "call00000"
"""The id of a call that names none. Mistral's templates take ids of nine letters and digits only."""

Template = Callable[[list[Message], bool], str]
"""Renders messages, with the tools and with or without the generation prompt. Raises RenderError."""

_USER: Message = {"role": "user", "content": "?"}
_PLAIN = "\ue000"
"""Content with which no format of calls begins."""
_MARK = "MARK-OF-A-CALL"
_PROBES = (Call("alpha", {"first": "one"}), Call("beta", {"second": 27}))
_BEGINNING = re.compile(r"<[^<>\s]+>|\[[A-Z_]+\]|\w+[\[{(]|\S")
_ENDING = re.compile(r"(?:<[^<>\s]+>|\[/?[A-Z_]+\]|\S)$")


class CallFormat:
    """The calls of one template.

    head, tail: the marks with which every call begins and ends; empty if calls have none in common.
    end: the text of the token that ends a call, and with it the action.
    opening: what the template writes between the opening of an action and a call, such as an empty thought.
    """

    def __init__(self, template: Template, tokenizer: PreTrainedTokenizerBase) -> None:
        self._template = template
        added = tokenizer.added_tokens_decoder.values()
        self._specials = _any_of({*tokenizer.all_special_tokens, *(token.content for token in added)})
        self._ends = _any_of({*tokenizer.all_special_tokens, *(token.content for token in added if token.special)})
        plain = template([_USER, {"role": "assistant", "content": _PLAIN}], False)
        before, found, behind = plain.partition(_PLAIN)
        if not found:
            raise RenderError("the chat template drops the text of an assistant message")
        self._before = before
        first = self._specials.match(behind)
        self._plain_end = first.group() if first else ""
        self._arguments_as_text = False
        try:
            bodies = [self._body(call) for call in _PROBES]
        except RenderError:
            # DeepSeek's templates take the arguments as JSON text, the others as an object.
            self._arguments_as_text = True
            bodies = [self._body(call) for call in _PROBES]
        self.end = bodies[0][1]
        texts = [text for text, _ in bodies]
        beginning = _BEGINNING.match(_common(*texts).lstrip())
        ending = _ENDING.search(_common(*(text[::-1] for text in texts))[::-1].rstrip())
        self.head = beginning.group() if beginning else ""
        self.tail = ending.group() if ending else ""
        self._writes_ids = CALL_ID in texts[0]
        prompt = template([_USER], True)
        before = self._with_result(self.message(_PROBES[0])).partition(texts[0])[0]
        self.opening = before[len(prompt) :] if before.startswith(prompt) else ""

    def write(self, call: Call) -> str:
        """Return a call as the template writes it, without the token that ends it."""
        return self._body(call)[0]

    def begins(self, text: str) -> bool:
        """Return whether a text is meant as a call, well formed or not.

        A mark of one character, which plain speech may contain too, counts at the beginning of the text only.
        """
        if not self.head:
            return False
        return self.head in text if len(self.head) > 1 else self._bare(text).startswith(self.head)

    def begins_again(self, text: str) -> bool:
        """Return whether a second call begins in a text, which some parsers ignore."""
        return len(self.head) > 1 and text.count(self.head) > 1

    def beside(self, text: str) -> str:
        """Return the text before and behind the call in a text, without special tokens such as `<|python_tag|>`."""
        if not self.head or self.head not in text:
            return ""
        before, _, rest = text.partition(self.head)
        behind = rest.rpartition(self.tail)[2] if self.tail and self.tail in rest else ""
        return self._bare(before + behind)

    def has_control_tokens(self, call: Call) -> bool:
        """Return whether an argument spells a control token, which would end its message if it were rendered again."""
        return self._specials.search(json.dumps(call.args, ensure_ascii=False)) is not None

    def written_id(self, text: str) -> str | None:
        """Return the id that the text of a call names behind its arguments, as Mistral's templates write it."""
        found = re.findall(r'"id":\s*"([A-Za-z0-9]{9})"', text)
        return found[-1] if found and self._writes_ids else None

    def message(self, call: Call, call_id: str = CALL_ID) -> Message:
        """Return the assistant message of a call, in the form that the template accepts."""
        args = json.dumps(call.args, ensure_ascii=False) if self._arguments_as_text else dict(call.args)
        function = {"name": call.tool, "arguments": args}
        return {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": call_id, "type": "function", "function": function}],
        }

    def behind(self, answer: Sequence[Message]) -> str:
        """Return what the template writes behind a call, through the messages of `answer`, to the next action.

        The text begins with the token that ends the call. The call itself is not rendered: another one, with the name
        and the id of the first result in `answer`, takes its place.
        """
        result = next(filter(is_result, answer))
        stand_in = self.message(Call(result["name"], {"mark": _MARK}), result["tool_call_id"])
        body, end = self._split(stand_in)
        whole = self._template([_USER, stand_in, *answer], True)
        _, found, rest = whole.partition(body)
        text, ended, rest = rest.partition(end)
        if not found or not ended or text.strip():
            raise RenderError(f"the chat template changes the call {body!r} when its result follows: {whole[-200:]!r}")
        return end + rest

    def _bare(self, text: str) -> str:
        return self._specials.sub("", text).strip()

    def _body(self, call: Call) -> tuple[str, str]:
        """Return what the template writes for a call, and the end token behind it."""
        return self._split(self.message(call))

    def _split(self, message: Message) -> tuple[str, str]:
        whole = self._template([_USER, message], False)
        # Whatever the template writes before every answer, such as an empty thought, is not part of the call.
        body = whole[len(_common(whole, self._before + _PLAIN)) :]
        if message["tool_calls"][0]["function"]["name"] not in body:
            raise RenderError(f"the chat template does not write the tool calls of an assistant message: {body[:60]!r}")
        if self._plain_end and self._plain_end in body:
            return body.partition(self._plain_end)[0].strip(), self._plain_end
        ends = list(self._ends.finditer(body))
        if ends and not body[ends[-1].end() :].strip():
            return body[: ends[-1].start()].strip(), ends[-1].group()
        # The token that begins the next message ends the call in GLM's templates.
        body = body.strip()
        rest = self._with_result(message).partition(body)[2].lstrip()
        end = self._ends.match(rest)
        if end is None:
            raise RenderError(
                f"the chat template writes {rest[:20]!r} behind a tool call, which is no special token, so no token "
                "can end the action"
            )
        return body, end.group()

    def _with_result(self, message: Message) -> str:
        return self._template([_USER, message, *tool_messages(message, "?")], True)


def _any_of(texts: set[str]) -> re.Pattern[str]:
    """Return a pattern that matches any of the texts, the longest first."""
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or r"(?!)")


def _common(one: str, other: str) -> str:
    """Return the longest text with which both begin."""
    return os.path.commonprefix([one, other])  # noqa: RUF071  characters, not folders


def tool_messages(message: Message, observation: Observation) -> list[Message]:
    """Return the observation that follows an assistant message with a tool call as messages.

    A string becomes a message of the tool. Messages of the environment stay as they are, except that a message of the
    tool gets the id and the name of the call where it has none.
    """
    (call,) = message["tool_calls"]
    said: list[Message] = [{"role": "tool", "content": observation}] if isinstance(observation, str) else observation
    about: Any = {"name": call["function"]["name"], "tool_call_id": call["id"]}
    return [{**about, **one} if one["role"] == "tool" else one for one in said]


def is_result(message: Message) -> bool:
    """Return whether a message is the result of a call that it names."""
    return message["role"] == "tool" and "tool_call_id" in message and "name" in message


def sample_call(tool: Mapping[str, Any]) -> Call:
    """Return a call of a tool, given by its schema, with an argument of each declared type."""
    function = tool["function"]
    properties = (function.get("parameters") or {}).get("properties", {})
    return Call(function["name"], {name: _sample(schema) for name, schema in properties.items()})


def _sample(schema: Mapping[str, Any]) -> Any:
    if choices := schema.get("enum"):
        return choices[0]
    kind = schema.get("type")
    if isinstance(kind, Sequence) and not isinstance(kind, str):
        kind = next((one for one in kind if one != "null"), None)
    if kind == "array":
        return [_sample(schema.get("items") or {})]
    if kind == "object":
        return {name: _sample(part) for name, part in (schema.get("properties") or {}).items()}
    return {"integer": 7, "number": 1.5, "boolean": True}.get(str(kind), "some words")
