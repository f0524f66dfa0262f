"""How a policy calls the tools of its environment: in the format of its chat template, or by lines of JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from actors.config import RolloutConfig
from actors.errors import RenderError
from actors.rendering.context import EpisodeContext
from actors.rendering.template import ChatTemplate
from actors.tools.native import NativeTools

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from envs import Message


class CallChoice(NamedTuple):
    """The form of the calls.

    native: the calls in the format of the template; None for lines of JSON.
    reason: what decided it, for people.
    """

    native: NativeTools | None
    reason: str


def choose_calls(
    config: RolloutConfig, tokenizer: PreTrainedTokenizerBase, tools: Sequence[Mapping[str, Any]]
) -> CallChoice:
    """Return how a policy calls the tools of an environment, given by their JSON schemas.

    Raises RenderError if the configuration demands native calls, or names a parser, and they are not possible.
    """
    demanded = config.tools == "native" or config.tool_parser != "auto"
    if not tools:
        if demanded:
            raise RenderError(
                "native tool calls are demanded (`rollout.tools`, `rollout.tool_parser`), but the environment declares "
                "no tools; set rollout.tools=auto and rollout.tool_parser=auto"
            )
        return CallChoice(None, "the environment declares no tools")
    if config.tools == "json":
        return CallChoice(None, "rollout.tools is json")
    if config.renderer == "plain" or not tokenizer.chat_template:
        if demanded:
            raise RenderError(
                "native tool calls are demanded (`rollout.tools`, `rollout.tool_parser`), but the tokenizer has no "
                "chat template; set rollout.tools=auto and rollout.tool_parser=auto"
            )
        return CallChoice(None, "without a chat template there is no other form")
    try:
        native = _native(config, tokenizer, tools)
    except RenderError as error:
        if demanded:
            raise RenderError(
                f"{error}; set rollout.tools=auto and rollout.tool_parser=auto, with which the policy calls by lines "
                "of JSON where it must"
            ) from error
        return CallChoice(None, str(error))
    return CallChoice(native, f"the chat template writes them and vLLM's parser {native.parser} reads them")


def _native(
    config: RolloutConfig, tokenizer: PreTrainedTokenizerBase, tools: Sequence[Mapping[str, Any]]
) -> NativeTools:
    context = EpisodeContext(datetime.now(), tuple(tools))
    template = ChatTemplate(tokenizer, context)
    if not template.shows_tools(context):
        raise RenderError("the chat template shows no tools")

    def render(messages: Sequence[Message], prompt: bool) -> str:
        return template.conversation(messages, context, prompt=prompt)

    return NativeTools(render, tokenizer, tools, config.tool_parser)
