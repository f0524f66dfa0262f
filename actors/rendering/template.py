"""A tokenizer's chat template: conversations to text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from actors.errors import RenderError
from actors.rendering.context import EpisodeContext
from actors.rendering.time_limit import OutOfTimeError, processor_limit

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from envs import Message

_BASE: list[Message] = [{"role": "user", "content": "?"}]
_MARK = "zqActionHere"
"""Stands for an action; it is longer if a conversation contains it."""
LIMIT_S = 10.0
"""Processor time of one rendering. Published templates take milliseconds."""


class ChatTemplate:
    """Renders conversations with the generation prompt, at the time of their episode.

    A template may have no system role, refuse two user messages in a row, or drop one of them. The constructor tries
    this. Where the template has no place for a system message, it becomes a user message, and where it has none for a
    second user message, the two are joined with an empty line.

    Raises RenderError if the tokenizer has no template, or the template cannot render a user message.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, context: EpisodeContext) -> None:
        if not tokenizer.chat_template:
            raise RenderError(
                "rollout.renderer=chat, but the tokenizer has no chat template; use rollout.renderer=plain"
            )
        self._tokenizer = tokenizer
        self._repeating: tuple[tuple[Mapping[str, Any], ...], bool] | None = None
        self._render(_BASE, context)
        self._system_first = self._keeps(["system", "user"], context)
        self._system_later = self._keeps(["user", "assistant", "system", "user"], context)
        self._users_in_row = self._keeps(["user", "user"], context)

    def shows_tools(self, context: EpisodeContext) -> bool:
        """Return whether the template writes the tools of `context`."""
        return self._render(_BASE, context) != self._render(_BASE, replace(context, tools=()))

    def conversation(self, messages: Sequence[Message], context: EpisodeContext, *, prompt: bool) -> str:
        """Return a conversation, with or without the opening of the next action. Raises RenderError."""
        return self._render(self._fitted(messages), context, prompt=prompt)

    def opening(self, context: EpisodeContext) -> str:
        """Return what the template writes between the opening of an action and its text.

        Published templates write a space (Mistral) or an empty thought (GLM), which their models write too.
        """
        prompt = self._render(_BASE, context)
        turn: list[Message] = [*_BASE, {"role": "assistant", "content": _MARK}, *_BASE]
        before = self._render(self._fitted(turn), context).partition(_MARK)[0]
        return before[len(prompt) :] if before.startswith(prompt) else ""

    def text(self, messages: Sequence[Message], context: EpisodeContext) -> str:
        """Return a conversation, up to where the assistant begins to write. Raises RenderError."""
        if context.system_prompt is not None:
            messages = [{"role": "system", "content": context.system_prompt}, *messages]
        return self._render(self._fitted(messages), context)

    def suffix(self, messages: Sequence[Message], context: EpisodeContext) -> str:
        """Return the text from the end of an action, through the `messages` that answer it, to the next action.

        The action is a mark that no template changes, so the text is the same whatever the action is. A template that
        repeats the tools in the last message of the user (Mistral) does not get them.
        """
        if context.tools and self._repeats(context):
            context = replace(context, tools=())
        return self._behind_mark(messages, context)

    def _behind_mark(self, messages: Sequence[Message], context: EpisodeContext) -> str:
        mark = _MARK
        while any(mark in message["content"] for message in messages):
            mark += "Z"
        turn: list[Message] = [*_BASE, {"role": "assistant", "content": mark}, *messages]
        _, found, after = self._render(self._fitted(turn), context).rpartition(mark)
        if not found:
            raise RenderError(
                f"the chat template drops an assistant message that messages of roles {_roles(messages)} follow; "
                "change the template, or use rollout.renderer=plain"
            )
        return after

    def _repeats(self, context: EpisodeContext) -> bool:
        """Return whether the template writes the tools again with each message of the user."""
        if self._repeating is None or self._repeating[0] is not context.tools:
            shown = self._behind_mark(_BASE, context)
            hidden = self._behind_mark(_BASE, replace(context, tools=()))
            names = [str(tool["function"]["name"]) for tool in context.tools]
            self._repeating = context.tools, shown != hidden and all(name in shown for name in names)
        return self._repeating[1]

    def _fitted(self, messages: Sequence[Message]) -> list[Message]:
        """Return the messages in the roles and the order that the template accepts."""
        fitted: list[Message] = []
        for message in messages:
            if message["role"] == "system" and not (self._system_later if fitted else self._system_first):
                message = {**message, "role": "user"}
            role = message["role"]
            again = bool(fitted) and fitted[-1]["role"] == role
            if again and (role == "system" or (role == "user" and not self._users_in_row)):
                fitted[-1] = {**fitted[-1], "content": f"{fitted[-1]['content']}\n\n{message['content']}"}
            else:
                fitted.append(message)
        return fitted

    def _keeps(self, roles: Sequence[str], context: EpisodeContext) -> bool:
        """Return whether the template accepts messages of these roles in a row and writes each of them."""
        contents = [f"zqMessage{number}" for number in range(len(roles))]
        try:
            text = self._render(
                [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)], context
            )
        except RenderError:
            return False
        return all(content in text for content in contents)

    def _render(self, messages: Sequence[Message], context: EpisodeContext, *, prompt: bool = True) -> str:
        try:
            with processor_limit(LIMIT_S):
                return str(
                    self._tokenizer.apply_chat_template(
                        list(messages),
                        tools=list(context.tools) or None,
                        tokenize=False,
                        add_generation_prompt=prompt,
                        strftime_now=context.strftime_now,
                    )
                )
        except OutOfTimeError as error:
            raise RenderError(
                f"the chat template used more than {LIMIT_S:g} s of processor time for messages of roles "
                f"{_roles(messages)}; remove its loops without end, or use rollout.renderer=plain"
            ) from error
        # A template is a program of others, which may raise anything.
        except Exception as error:
            raise RenderError(
                f"the chat template rejects messages of roles {_roles(messages)}: {type(error).__name__}: {error}"
            ) from error


def _roles(messages: Sequence[Message]) -> list[str]:
    return [message["role"] for message in messages]
