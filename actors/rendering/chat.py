"""The renderer for chat models: the tokenizer's chat template."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING

from actors.errors import RenderError
from actors.rendering.renderer import as_messages

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from envs import Message, Observation

# Contents that known templates treat specially: surrounding space, an empty line, braces.
_SAMPLES = ("Is it alive?", "Is it\n\na dog?", "a 'quoted' {word}")
_BASE: list[Message] = [{"role": "user", "content": "?"}]


class ChatRenderer:
    """Renders conversations by the tokenizer's chat template.

    A turn appends the text that the template puts between the end of one assistant message and the start of the next.
    The constructor checks on a conversation of several turns that this text does not depend on earlier turns; each
    turn checks that the template keeps the action's text unchanged. A failed check raises RenderError.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.chat_template:
            raise RenderError(
                "rollout.renderer=chat, but the tokenizer has no chat template; use rollout.renderer=plain"
            )
        self._tokenizer = tokenizer
        # The template itself writes the special tokens.
        self._encode = partial(tokenizer.encode, add_special_tokens=False)
        self._base = self._template(_BASE)
        self._end = self._end_of_turn()
        eos = tokenizer.eos_token_id
        self.stop_token_ids = sorted({self._end, *([int(eos)] if eos is not None else [])})
        self._check_conversation()

    def start(self, observation: Observation) -> list[int]:
        return self._encode(self._template(as_messages(observation)))

    def extend(self, tokens: Sequence[int], action_tokens: Sequence[int], observation: Observation) -> list[int]:
        suffix = self._suffix(self.action_text(action_tokens), as_messages(observation))
        added = self._encode(suffix)
        if action_tokens[-1] == self._end:
            added = added[1:]
        return [*tokens, *action_tokens, *added]

    def action_text(self, action_tokens: Sequence[int]) -> str:
        ids = list(action_tokens)
        if ids and ids[-1] in self.stop_token_ids:
            ids.pop()
        return self._tokenizer.decode(ids, skip_special_tokens=False).strip()

    def encode_action(self, text: str) -> list[int]:
        return [*self._encode(text), self._end]

    def _suffix(self, action: str, messages: list[Message]) -> str:
        """Return the template's text from the end of `action` to the start of the next action."""
        turn: list[Message] = [*_BASE, {"role": "assistant", "content": action}, *messages]
        text = self._template(turn)
        expected = self._base + action
        if not text.startswith(expected):
            at = _common_prefix(expected, text)
            raise RenderError(
                "the chat template changes earlier text when a turn is added: at token "
                f"{len(self._encode(text[:at]))}, after {text[max(0, at - 40) : at]!r}, the longer conversation has "
                f"{text[at : at + 40]!r} and the shorter one {expected[at : at + 40]!r}. A template that rewrites or "
                "drops earlier messages (such as thoughts) cannot be trained on token by token; change the template, "
                "or use rollout.renderer=plain"
            )
        return text[len(expected) :]

    def _end_of_turn(self) -> int:
        suffix = self._suffix("x", _BASE)
        first = self._encode(suffix)[0]
        if first not in self._tokenizer.all_special_ids and first not in self._tokenizer.added_tokens_decoder:
            raise RenderError(
                f"the chat template ends an assistant message with {suffix[:20]!r}, which is no special token, so "
                "no token can end an action; use rollout.renderer=plain"
            )
        return first

    def _check_conversation(self) -> None:
        """Check that rendering turn by turn gives the template's tokens of the whole conversation."""
        tokens = self.start("Begin.")
        messages = as_messages("Begin.")
        for i, action in enumerate(_SAMPLES):
            answer = f"Answer {i}."
            tokens = self.extend(tokens, self.encode_action(action), answer)
            messages += [{"role": "assistant", "content": action}, *as_messages(answer)]
            whole = self._encode(self._template(messages))
            if tokens != whole:
                at = _common_prefix(tokens, whole)
                around = slice(max(0, at - 8), at + 8)
                raise RenderError(
                    f"the chat template is not the sum of its turns: at token {at} of a conversation of {i + 2} turns "
                    f"the whole conversation has {self._tokenizer.decode(whole[around])!r}, its turns have "
                    f"{self._tokenizer.decode(tokens[around])!r}; change the template, or use rollout.renderer=plain"
                )

    def _template(self, messages: list[Message]) -> str:
        from jinja2.exceptions import TemplateError

        try:
            return str(self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))
        except (TemplateError, ValueError, TypeError) as error:
            raise RenderError(
                f"the chat template rejects messages of roles {[m['role'] for m in messages]}: {error}"
            ) from error


def _common_prefix(one: Sequence[object], other: Sequence[object]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
