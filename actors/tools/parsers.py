"""The tool parsers of vLLM: their names, and one of them for a tokenizer and a set of tools."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from actors.errors import RenderError
from envs.toolkit.tool_calls import Call

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_QUIET = ("vllm.tool_parsers", "vllm.parser")
"""Loggers that print a traceback for each malformed call; a policy in training writes many."""


class Parsed(NamedTuple):
    """What a parser found in a text.

    calls: the calls, in order, with their arguments as JSON values (an object if the call is well formed).
    ids: the id of each call; the parser makes one up if the text has none.
    content: the text beside the calls, as far as the parser reports it.
    """

    calls: list[Call]
    ids: list[str]
    content: str


class CallParser:
    """A tool parser of vLLM. Raises RenderError if the parser does not fit the tokenizer."""

    def __init__(self, name: str, tokenizer: PreTrainedTokenizerBase, tools: Sequence[Mapping[str, Any]]) -> None:
        vllm = _vllm()
        if name not in parser_names():
            raise RenderError(
                f"`rollout.tool_parser` is {name!r}, and vLLM has no such parser; it has {', '.join(parser_names())}"
            )
        declared = [vllm.tool.model_validate(tool) for tool in tools]
        self.name = name
        self._request = vllm.request(messages=[], model="", tools=declared, tool_choice="auto")
        try:
            self._parser = vllm.manager.get_tool_parser(name)(tokenizer, declared)
        except Exception as error:  # each parser of vLLM refuses a foreign tokenizer by an error of its own
            raise RenderError(f"vLLM's tool parser {name!r} does not fit the tokenizer: {error}") from error
        if hasattr(self._parser, "skip_reasoning_parsing"):
            self._parser.skip_reasoning_parsing = True  # the renderer has removed the thoughts

    def parse(self, text: str) -> Parsed | None:
        """Return the calls in a text; None if the parser finds none or fails."""
        try:
            found = self._parser.extract_tool_calls(text, request=self._request)
        except Exception:  # noqa: BLE001  a parser may raise anything on a malformed call; it is counted as rejected
            return None
        if not found.tools_called or not found.tool_calls:
            return None
        calls = [Call(call.function.name, _arguments(call.function.arguments)) for call in found.tool_calls]
        return Parsed(calls, [str(call.id) for call in found.tool_calls], found.content or "")


@cache
def parser_names() -> tuple[str, ...]:
    """Return the names of vLLM's tool parsers, in alphabetical order."""
    return tuple(_vllm().manager.list_registered())


def _arguments(written: str) -> Any:
    """Return the arguments of a call as JSON values; None if they are not JSON."""
    try:
        return json.loads(written)
    except (ValueError, RecursionError):
        return None


class _Vllm(NamedTuple):
    manager: Any
    request: Any
    tool: Any


@cache
def _vllm() -> _Vllm:
    """Import vLLM's parsers, which takes seconds, and loads no engine."""
    # vLLM logs during its import, before it reads its own log level.
    logger = logging.getLogger("vllm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest, ChatCompletionToolsParam
    from vllm.tool_parsers import ToolParserManager

    logger.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    return _Vllm(ToolParserManager, ChatCompletionRequest, ChatCompletionToolsParam)
