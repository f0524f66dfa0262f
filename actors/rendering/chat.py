"""The renderer for chat models: the tokenizer's chat template."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import takewhile
from typing import TYPE_CHECKING

from actors.errors import RenderError
from actors.rendering.context import EpisodeContext
from actors.rendering.control_tokens import ControlTokens
from actors.rendering.renderer import Action, as_messages
from actors.rendering.template import ChatTemplate
from actors.tools.native import NativeTools
from envs.toolkit.tool_calls import split_call

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from envs import Observation

# Contents that known templates treat specially: surrounding space, an empty line, braces.
_SAMPLES = ("Is it alive?", "Is it\n\na dog?", "a 'quoted' {word}")


class ChatRenderer:
    """Renders conversations by the tokenizer's chat template.

    A turn appends the text that the template puts between the end of one assistant message and the start of the next;
    the action stays as the engine wrote it. The constructor checks on a conversation of several turns that this text
    does not depend on earlier turns. A failed check raises RenderError.

    Args:
        native: the tool calls of this template; None if the policy calls tools by lines of JSON.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, native: NativeTools | None = None) -> None:
        context = EpisodeContext(datetime.now())
        self._template = ChatTemplate(tokenizer, context)
        self._tokenizer = tokenizer
        self._control = ControlTokens(tokenizer)
        self._encode = self._control.encode
        self._end = self._end_of_turn(context)
        eos = tokenizer.eos_token_id
        self._native = native
        self.tools = () if native is None else native.schemas
        # Some models end a call with another token than text.
        self._ends = {self._end} if native is None else {self._end, self._encode(native.format.end)[0]}
        self.stop_token_ids = sorted(self._ends.union([int(eos)] if eos is not None else []))
        self._check_conversation(context)

    def start(self, observation: Observation, context: EpisodeContext) -> list[int]:
        messages, texts = self._control.hide(as_messages(observation))
        return self._control.encode_hidden(self._template.text(messages, context), texts)

    def extend(
        self, tokens: Sequence[int], action_tokens: Sequence[int], observation: Observation, context: EpisodeContext
    ) -> list[int]:
        messages, texts = self._control.hide(as_messages(observation))
        if self._native is not None and any("tool_call_id" in message for message in messages):
            suffix = self._native.format.behind(messages)
        else:
            suffix = self._template.suffix(messages, context)
        added = self._control.encode_hidden(suffix, texts)
        if action_tokens[-1] in self._ends:
            added = added[1:]
        return [*tokens, *action_tokens, *added]

    def read_action(self, action_tokens: Sequence[int], context: EpisodeContext) -> Action:
        ids = list(action_tokens)
        if ids and ids[-1] in self.stop_token_ids:
            ids.pop()
        text = self._tokenizer.decode(ids, skip_special_tokens=False).strip()
        if self._native is None:
            return Action(text, {"role": "assistant", "content": text})
        return Action(*self._native.read(text))

    def encode_action(self, text: str, context: EpisodeContext) -> list[int]:
        call = None if self._native is None else split_call(text)
        if self._native is None or call is None:
            tokens = self._encode(text)
            # A text that spells a stop token would end the action before its end.
            return [*(self._control.encode_text(text) if self._ends & set(tokens) else tokens), self._end]
        return self._encode(self._native.format.write(call) + self._native.format.end)

    def _end_of_turn(self, context: EpisodeContext) -> int:
        suffix = self._template.suffix(as_messages("?"), context)
        first = self._encode(suffix)[0]
        if first not in self._tokenizer.all_special_ids and first not in self._tokenizer.added_tokens_decoder:
            raise RenderError(
                f"the chat template ends an assistant message with {suffix[:20]!r}, which is no special token, so "
                "no token can end an action; use rollout.renderer=plain"
            )
        return first

    def _check_conversation(self, context: EpisodeContext) -> None:
        """Check that a conversation is the sum of its turns, as text and as tokens.

        The generation prompt may end with an opening that earlier assistant messages lack, such as that of a thought.
        """
        messages = as_messages("Begin.")
        turns = self._template.text(messages, context)
        tokens = self.start("Begin.", context)
        opening = ""
        for i, answer in enumerate(_SAMPLES):
            action = f"zqAnswer{i}"
            tokens = self.extend(tokens, self.encode_action(action, context), answer, context)
            messages += [{"role": "assistant", "content": action}, *as_messages(answer)]
            whole = self._template.text(messages, context)
            head = whole.partition(action)[0]
            if not i and turns.startswith(head):
                opening = turns[len(head) :]
            turns = turns.removesuffix(opening) + action + self._template.suffix(as_messages(answer), context)
            if turns != whole:
                self._refuse(turns, whole, i + 2)
        text = self._template.text(as_messages("Begin."), context)
        for i, answer in enumerate(_SAMPLES):
            text += f"zqAnswer{i}" + self._template.suffix(as_messages(answer), context)
        if tokens != (encoded := self._encode(text)):
            at = _common_prefix(tokens, encoded)
            around = slice(max(0, at - 8), at + 8)
            raise RenderError(
                f"the tokens of a conversation are not those of its turns: at token {at} the whole has "
                f"{self._tokenizer.decode(encoded[around])!r}, the turns have "
                f"{self._tokenizer.decode(tokens[around])!r}; use rollout.renderer=plain"
            )

    def _refuse(self, turns: str, whole: str, length: int) -> None:
        at = _common_prefix(turns, whole)
        raise RenderError(
            f"the chat template changes earlier text when a turn is added: at token {len(self._encode(whole[:at]))}, "
            f"after {whole[max(0, at - 40) : at]!r}, a conversation of {length} turns has {whole[at : at + 40]!r} and "
            f"the turns one by one have {turns[at : at + 40]!r}; change the template, or use rollout.renderer=plain"
        )


def _common_prefix(one: Sequence[object], other: Sequence[object]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
