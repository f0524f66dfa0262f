"""The renderer for base models: lines of text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
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

    An action ends with a newline if the tokenizer has a token for it, else with `stop_text` or the end-of-text token.
    The end-of-text token always ends an action, and so does every token that contains a newline (some vocabularies have
    "?\\n" as one token). If the token limit cut an action, its end is part of the next observation.

    Args:
        stop_text: ends actions and lines in place of a newline, if the tokenizer has no token for that.

    Attributes:
        warning: a sentence for people if actions may run to their token limit; else None.

    Raises RenderError if nothing can end an action, or if there is a token for the newline beside `stop_text`.
    """

    tools: tuple[Mapping[str, Any], ...] = ()
    thoughts: Thoughts | None = None
    drops_thoughts = False

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop_text: str | None = None) -> None:
        self._tokenizer = tokenizer
        self._control = ControlTokens(tokenizer)
        self._encode = self._control.encode
        self.stop_text = stop_text
        eos = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
        newline = self._newline()
        self.warning = self._check_end(newline, eos)
        self._end = [newline] if newline is not None else self._encode(stop_text) if stop_text else eos
        # An observation may follow these tokens without a separator.
        self._closing = set() if stop_text else set(self._end)
        if newline is not None:
            special, text = set(tokenizer.all_special_ids), tokenizer.convert_tokens_to_string
            pieces = tokenizer.get_vocab().items()
            self._closing |= {i for piece, i in pieces if i not in special and "\n" in text([piece])}
        self.stop_token_ids = sorted(self._closing.union(eos))
        # Such a tokenizer puts a space before each text, also within a line of tokens; a line begins without it.
        spaced = newline is not None and self._encode("\n") != [newline]
        self._before = self._encode("a\n") if spaced else []
        bos = tokenizer.bos_token_id
        # Some tokenizers begin each text with a special token.
        self._first = [int(bos)] if bos is not None and tokenizer.encode("a")[:1] == [bos] else []

    def start(self, observation: Observation, context: EpisodeContext, actions: Collection[int] = ()) -> list[int]:
        return self._first + self._line(observation)

    def extend(
        self, tokens: Sequence[int], action_tokens: Sequence[int], observation: Observation, context: EpisodeContext
    ) -> list[int]:
        closed = action_tokens[-1] in self._closing or self.ends(action_tokens)
        return [*tokens, *action_tokens, *([] if closed else self._end), *self._line(observation, self._before)]

    def ends(self, action_tokens: Sequence[int]) -> bool:
        return self.stop_text is not None and self.stop_text in self._tokenizer.decode(list(action_tokens))

    def read_action(self, action_tokens: Sequence[int], context: EpisodeContext) -> Action:
        text = self._tokenizer.decode(list(action_tokens), skip_special_tokens=True)
        text = text.lstrip().partition(self.stop_text or "\n")[0].strip()
        return Action(text, {"role": "assistant", "content": text})

    def encode_action(self, text: str, context: EpisodeContext) -> list[int]:
        end = self.stop_text or "\n"
        if end in text:
            said = (
                "a newline, but an action of the plain renderer is one line"
                if end == "\n"
                else f"{end!r}, which ends it"
            )
            raise RenderError(f"the action {text!r} contains {said}; split it into turns, or use rollout.renderer=chat")
        return [*self._behind(self._before, text, self._encode), *self._end]

    def _line(self, observation: Observation, before: Sequence[int] = ()) -> list[int]:
        if not isinstance(observation, str):
            observation = "\n".join(message["content"] for message in observation)
        return self._behind(before, observation + (self.stop_text or "\n"), self._control.encode_text)

    def _behind(self, before: Sequence[int], text: str, encode: Callable[[str], list[int]]) -> list[int]:
        """Return the tokens of a text, as they are behind a newline if `before` has the tokens of a line."""
        if not before:
            return encode(text)
        tokens = encode("a\n" + text)
        return tokens[len(before) :] if tokens[: len(before)] == list(before) else encode(text)

    def _newline(self) -> int | None:
        """Return the token of the newline; None if there is none. Some tokenizers put a space before each text."""
        alone, letter, line = (self._encode(text) for text in ("\n", "a", "a\n"))
        if len(alone) == 1:
            return alone[0]
        behind = line[:-1] == letter and self._tokenizer.decode(line) == "a\n"
        return line[-1] if behind else None

    def _check_end(self, newline: int | None, eos: Sequence[int]) -> str | None:
        """Return a warning if only the end-of-text token ends an action. Raises RenderError."""
        if newline is not None:
            if self.stop_text is not None:
                raise RenderError(
                    "`rollout.stop_text` is set, but the tokenizer has a token for the newline, which ends actions; "
                    "set rollout.stop_text=null"
                )
            return None
        if self.stop_text is not None:
            return None
        if not eos:
            raise RenderError(
                'the tokenizer encodes "\\n" as several tokens and has no end-of-text token, so no token can end an '
                "action; set rollout.stop_text, such as rollout.stop_text=';', or use rollout.renderer=chat"
            )
        return (
            "the tokenizer has no token for the newline, so that only its end-of-text token ends an action; a model "
            "that rarely writes it runs to rollout.sampling.max_tokens at every turn. Set rollout.stop_text, such as "
            "rollout.stop_text=';'"
        )
