"""The renderer for base models: lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from actors.errors import RenderError
from actors.rendering.context import EpisodeContext
from actors.rendering.control_tokens import ControlTokens
from actors.rendering.renderer import Action
from actors.rendering.thoughts import Thoughts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from envs import Observation


class PlainRenderer:
    """Renders each observation and each action as one line; each message of an observation is a line.

    An action ends with a newline if the tokenizer encodes "\\n" as one token, else with the end-of-text token. The
    end-of-text token always ends an action, and so does every token that contains a newline (some vocabularies have
    "?\\n" as one token). If the token limit cut an action, its newline is part of the next observation.
    """

    tools: tuple[Mapping[str, Any], ...] = ()
    thoughts: Thoughts | None = None
    drops_thoughts = False

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._encode = partial(tokenizer.encode, add_special_tokens=False)
        self._control = ControlTokens(tokenizer)
        newline = self._encode("\n")
        eos = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
        if len(newline) != 1 and not eos:
            raise RenderError(
                'the tokenizer encodes "\\n" as several tokens and has no end-of-text token, so no token can end an '
                "action; give it an eos_token, or use rollout.renderer=chat"
            )
        self._end = newline[0] if len(newline) == 1 else eos[0]
        # An observation may follow these tokens without a separator.
        self._closing = {self._end}
        if len(newline) == 1:
            special, text = set(tokenizer.all_special_ids), tokenizer.convert_tokens_to_string
            pieces = tokenizer.get_vocab().items()
            self._closing |= {i for piece, i in pieces if i not in special and "\n" in text([piece])}
        self.stop_token_ids = sorted(self._closing.union(eos))
        bos = tokenizer.bos_token_id
        # Some tokenizers begin each text with a special token.
        self._first = [int(bos)] if bos is not None and tokenizer.encode("a")[:1] == [bos] else []

    def start(self, observation: Observation, context: EpisodeContext) -> list[int]:
        return self._first + self._line(observation)

    def extend(
        self, tokens: Sequence[int], action_tokens: Sequence[int], observation: Observation, context: EpisodeContext
    ) -> list[int]:
        separator = [] if action_tokens[-1] in self._closing else [self._end]
        return [*tokens, *action_tokens, *separator, *self._line(observation)]

    def read_action(self, action_tokens: Sequence[int], context: EpisodeContext) -> Action:
        text = self._tokenizer.decode(list(action_tokens), skip_special_tokens=True)
        text = text.lstrip().partition("\n")[0].strip()
        return Action(text, {"role": "assistant", "content": text})

    def encode_action(self, text: str, context: EpisodeContext) -> list[int]:
        if "\n" in text:
            raise RenderError(
                f"the action {text!r} contains a newline, but an action of the plain renderer is one line; split it "
                "into turns, or use rollout.renderer=chat"
            )
        return [*self._encode(text), self._end]

    def _line(self, observation: Observation) -> list[int]:
        if not isinstance(observation, str):
            observation = "\n".join(message["content"] for message in observation)
        return self._control.encode_text(observation + "\n")
