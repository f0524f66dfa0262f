"""The renderer for chat models: the tokenizer's chat template."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from actors.config import RolloutConfig
from actors.errors import RenderError
from actors.rendering.context import EpisodeContext
from actors.rendering.control_tokens import ControlTokens
from actors.rendering.conversation_check import check_conversation
from actors.rendering.renderer import Action, as_messages
from actors.rendering.template import ChatTemplate
from actors.rendering.thoughts import Thoughts, check_budget, find_markers
from actors.tools.call_format import is_result
from actors.tools.native import NativeTools
from envs.toolkit.tool_calls import split_call

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from envs import Observation


class ChatRenderer:
    """Renders conversations by the tokenizer's chat template.

    A turn appends the text that the template puts between the end of one assistant message and the start of the next;
    the action stays as the engine wrote it. The constructor checks on a conversation of several turns that this text
    does not depend on earlier turns. A failed check raises RenderError.

    Args:
        config: whether thoughts are kept, and their markers and budget.
        native: the tool calls of this template; None if the policy calls tools by lines of JSON.
    """

    stop_text: str | None = None
    warning: str | None = None

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, config: RolloutConfig, native: NativeTools | None = None
    ) -> None:
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
        markers = find_markers(config, tokenizer)
        prompt = self._template.text(as_messages("?"), context)
        self.thoughts = None if markers is None else Thoughts(markers, prompt, self._encode)
        check_budget(config, self.thoughts)
        self._opening = self._template.opening(context)
        self.drops_thoughts = config.thoughts == "drop"
        if not self.drops_thoughts:
            check_conversation(self, self._template, self._control, self._end, context)

    def start(self, observation: Observation, context: EpisodeContext, actions: Collection[int] = ()) -> list[int]:
        messages, texts = self._control.hide(as_messages(observation), but=actions)
        return self._control.encode_hidden(self._template.text(messages, context), texts)

    def extend(
        self, tokens: Sequence[int], action_tokens: Sequence[int], observation: Observation, context: EpisodeContext
    ) -> list[int]:
        messages, texts = self._control.hide(as_messages(observation))
        if self._native is not None and any(map(is_result, messages)):
            suffix = self._native.format.behind(messages)
        else:
            suffix = self._template.suffix(messages, context)
        added = self._control.encode_hidden(suffix, texts)
        if action_tokens[-1] in self._ends:
            added = added[1:]
        return [*tokens, *action_tokens, *added]

    def ends(self, action_tokens: Sequence[int]) -> bool:
        return False

    def read_action(self, action_tokens: Sequence[int], context: EpisodeContext) -> Action:
        ids = list(action_tokens)
        if ids and ids[-1] in self.stop_token_ids:
            ids.pop()
        text = self._tokenizer.decode(ids, skip_special_tokens=False).strip()
        thought, answer = ("", text) if self.thoughts is None else self.thoughts.split(text)
        endless = bool(thought) and self.thoughts is not None and self.thoughts.end not in thought
        if self._native is None:
            return Action(answer, {"role": "assistant", "content": answer}, thought=thought, endless=endless)
        return Action(*self._native.read(answer), thought=thought, endless=endless)

    def encode_action(self, text: str, context: EpisodeContext) -> list[int]:
        thought, answer = ("", text) if self.thoughts is None else self.thoughts.closed(text)
        if not thought and self.thoughts is not None:
            thought = self.thoughts.closing()
        call = None if self._native is None else split_call(answer)
        if self._native is not None and call is not None:
            form = self._native.format
            return self._encode((thought or form.opening) + form.write(call) + form.end)
        thought = thought or self._opening
        tokens = self._encode(thought + answer)
        # A text that spells a stop token would end the action before its end.
        return [*(self._control.encode_text(thought + answer) if self._ends & set(tokens) else tokens), self._end]

    def _end_of_turn(self, context: EpisodeContext) -> int:
        suffix = self._template.suffix(as_messages("?"), context)
        first = self._encode(suffix)[0]
        if first not in self._tokenizer.all_special_ids and first not in self._tokenizer.added_tokens_decoder:
            raise RenderError(
                f"the chat template ends an assistant message with {suffix[:20]!r}, which is no special token, so "
                "no token can end an action; use rollout.renderer=plain"
            )
        return first
