"""The tool calls of one chat model: actions as the environment reads them, and calls as the model writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from actors.errors import RenderError
from actors.tools.call_format import CALL_ID, CallFormat, Template, sample_call
from actors.tools.parsers import CallParser, Parsed, parser_names
from envs.base import Message
from envs.toolkit.tool_calls import Call, write_call, write_rejected

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

AUTO = "auto"
FIRST = ("hermes", "qwen3_coder", "mistral")
"""Parsers that are tried first: several read the format of Hermes and Qwen."""
NEVER = ("openai",)
"""Parsers that read token ids and not text."""
LAST = ("xlam", "llama3_json", "llama4_json", "pythonic")
"""Parsers that are tried last: their formats, bare JSON or Python, occur inside those of other parsers."""
_NAME = re.compile(r"[\w.-]{1,64}")
_SPEECH = "Which order is it?"


class Read(NamedTuple):
    """An action that was read.

    text: what the environment receives.
    message: the assistant message of the history.
    rejected: whether the action is meant as a call but is none of a tool that exists.
    """

    text: str
    message: Message
    rejected: bool = False


class NativeTools:
    """The tools of an environment in the format of a chat template.

    Args:
        template: renders messages with these tools.
        tools: the JSON schemas of the environment.
        parser: name of vLLM's parser; `auto` takes the first that reads back what the template writes.

    Raises RenderError if the template cannot write calls, or if the parser does not read them back.
    """

    def __init__(
        self,
        template: Template,
        tokenizer: PreTrainedTokenizerBase,
        tools: Sequence[Mapping[str, Any]],
        parser: str = AUTO,
    ) -> None:
        self.schemas = tuple(tools)
        self._names = {tool["function"]["name"] for tool in tools}
        self.format = CallFormat(template, tokenizer)
        samples = [sample_call(tool) for tool in tools]
        self._parser = self._choose(tokenizer, samples) if parser == AUTO else CallParser(parser, tokenizer, tools)
        if parser != AUTO and (fault := self._fault(self._parser, samples)):
            raise RenderError(f"`rollout.tool_parser` is {parser!r}, and {fault}")

    @property
    def parser(self) -> str:
        """The name of the parser."""
        return self._parser.name

    def read(self, text: str) -> Read:
        """Return an action, given without its stop token and thought, as the environment receives it.

        One call without other text becomes the environment's line of JSON, also if the tool does not exist. Text
        without a call stays as it is. All else that is meant as a call becomes the line of a rejected call, with the
        reason.
        """
        parsed = self._parser.parse(text)
        reason = self._reject(text, parsed)
        if reason is not None:
            return Read(write_rejected(reason), {"role": "assistant", "content": text}, rejected=True)
        if parsed is None:
            return Read(text, {"role": "assistant", "content": text})
        (call,), (made,) = parsed.calls, parsed.ids
        named = made if made in text else self.format.written_id(text)
        message = self.format.message(call, named or CALL_ID)
        return Read(write_call(call.tool, **call.args), message, rejected=call.tool not in self._names)

    def _reject(self, text: str, parsed: Parsed | None) -> str | None:
        """Return why an action is no legal one; None if it is."""
        if parsed is None:
            # A line of JSON is the form of a base model's calls.
            if self.format.begins(text) or text.lstrip().startswith("{"):
                return "the call cannot be parsed"
            return None
        if len(parsed.calls) > 1 or self.format.begins_again(text):
            return "several calls at once: make one call at a time"
        if parsed.content.strip() or self.format.beside(text):
            return "text beside the call: write the call alone"
        if not _NAME.fullmatch(parsed.calls[0].tool):
            return "the name of the tool is no name"
        if not isinstance(parsed.calls[0].args, dict):
            return "the arguments of the call are no JSON object"
        if self.format.has_control_tokens(parsed.calls[0]):
            return "an argument of the call contains a control token"
        return None

    def _choose(self, tokenizer: PreTrainedTokenizerBase, samples: Sequence[Call]) -> CallParser:
        others = [name for name in parser_names() if name not in FIRST + LAST + NEVER]
        for name in (*FIRST, *others, *LAST):
            try:
                parser = CallParser(name, tokenizer, self.schemas)
            except RenderError:
                continue
            if self._fault(parser, samples) is None:
                return parser
        written = self.format.write(samples[0])
        raise RenderError(f"no tool parser of vLLM reads the calls of the chat template, such as {written[:120]!r}")

    def _fault(self, parser: CallParser, samples: Sequence[Call]) -> str | None:
        """Return what a parser reads wrongly of what the template writes, or None."""
        for call in samples:
            written = self.format.write(call)
            parsed = parser.parse(written)
            if parsed is None or parsed.calls != [call] or parsed.content.strip():
                read = "no call" if parsed is None else str([tuple(one) for one in parsed.calls])
                return f"it reads {read[:120]} from {written[:120]!r}, a call of {call.tool} by the chat template"
        if parser.parse(_SPEECH) is not None:
            return f"it reads a call from {_SPEECH!r}"
        return None
