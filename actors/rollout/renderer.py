"""Text to tokens and back: what the policy reads of an episode, and what its actions say.

Tokens of an episode only ever grow: the state of turn t is a prefix of the state of turn t + 1, and the tokens that
the engine wrote stay as it wrote them. What a renderer adds is the new observation and what separates the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from actors.errors import RenderError
from buffer.episodes.schema import Episode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from envs import Demonstration, Message, Observation

RendererKind = Literal["auto", "plain", "chat"]


class Renderer(Protocol):
    """Stateless, so one serves all episodes of a worker."""

    stop_token_ids: list[int]
    """Any of these ends an action, and is its last token."""

    def start(self, observation: Observation) -> list[int]:
        """Tokens of s_0."""
        ...

    def extend(self, tokens: Sequence[int], action_tokens: Sequence[int], observation: Observation) -> list[int]:
        """Tokens of s_{t+1} from those of s_t, of a_t and the observation that answered it."""
        ...

    def action_text(self, action_tokens: Sequence[int]) -> str:
        """What the action says to the environment."""
        ...

    def encode_action(self, text: str) -> list[int]:
        """The tokens of an action that is given as text; the last one is a stop token."""
        ...


def make_renderer(kind: RendererKind, tokenizer: PreTrainedTokenizerBase) -> Renderer:
    """The renderer of `kind`; `auto` takes the tokenizer's chat template where it has one. Raises RenderError."""
    if kind == "auto":
        kind = "chat" if tokenizer.chat_template else "plain"
    return ChatRenderer(tokenizer) if kind == "chat" else PlainRenderer(tokenizer)


def as_messages(observation: Observation) -> list[Message]:
    """An observation as chat messages; a string is what the user says."""
    if isinstance(observation, str):
        return [{"role": "user", "content": observation}]
    return list(observation)


def as_text(observation: Observation) -> str:
    """An observation as text; of messages, their contents line by line."""
    if isinstance(observation, str):
        return observation
    return "\n".join(message["content"] for message in observation)


class PlainRenderer:
    """Lines of text, for base models: each observation a line, each action a line.

    An action ends in a newline where the tokenizer writes "\\n" as one token, else in the end-of-text token. End of
    text always ends an action, and so does any token that holds a newline (some vocabularies have "?\\n" as one).
    Where an action was cut short by the limit on its tokens, its newline is part of the next observation.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        newline = self._encode("\n")
        eos = tokenizer.eos_token_id
        if len(newline) != 1 and eos is None:
            raise RenderError(
                'the tokenizer writes "\\n" as several tokens and has no end-of-text token, so no token could end an '
                "action; give it an eos_token, or use rollout.renderer=chat"
            )
        self._end = newline[0] if len(newline) == 1 else int(eos)
        # What may follow an action with nothing between.
        self._closing = {self._end}
        if len(newline) == 1:
            self._closing |= _newline_tokens(tokenizer)
        self.stop_token_ids = sorted(self._closing | ({int(eos)} if eos is not None else set()))
        self._first = _first_tokens(tokenizer)

    def start(self, observation: Observation) -> list[int]:
        return self._first + self._line(observation)

    def extend(self, tokens: Sequence[int], action_tokens: Sequence[int], observation: Observation) -> list[int]:
        separator = [] if action_tokens[-1] in self._closing else [self._end]
        return [*tokens, *action_tokens, *separator, *self._line(observation)]

    def action_text(self, action_tokens: Sequence[int]) -> str:
        text = self._tokenizer.decode(list(action_tokens), skip_special_tokens=True)
        return text.lstrip().partition("\n")[0].strip()

    def encode_action(self, text: str) -> list[int]:
        if "\n" in text:
            raise RenderError(
                f"the action {text!r} has a newline, but a plain renderer's action is one line; split it into turns, "
                "or use rollout.renderer=chat"
            )
        return [*self._encode(text), self._end]

    def _line(self, observation: Observation) -> list[int]:
        return self._encode(as_text(observation) + "\n")

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)


# Contents that templates are known to treat apart: space at the ends, an empty line, a thought.
_SAMPLES = ("Is it alive?", "Is it\n\na dog?", "a 'quoted' {word}")
_BASE: list[Message] = [{"role": "user", "content": "?"}]


class ChatRenderer:
    """The tokenizer's chat template, for chat models.

    A turn adds what the template puts between the end of one assistant message and the start of the next. That it
    does not depend on earlier turns is checked when the renderer is made, on a conversation of several turns; that
    the template leaves the action's own text as it is, at each turn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.chat_template:
            raise RenderError(
                "rollout.renderer=chat, but the tokenizer has no chat template; use rollout.renderer=plain"
            )
        self._tokenizer = tokenizer
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
        """What the template writes after the text of `action`, up to the start of the next action."""
        turn: list[Message] = [*_BASE, {"role": "assistant", "content": action}, *messages]
        text = self._template(turn)
        expected = self._base + action
        if not text.startswith(expected):
            at = _first_difference(expected, text)
            raise RenderError(
                f"the chat template does not keep what stands before a turn: token {len(self._encode(text[:at]))} of "
                f"the longer conversation, after {text[max(0, at - 40) : at]!r}, has {text[at : at + 40]!r} where the "
                f"shorter one has {expected[at : at + 40]!r}. Templates that rewrite or drop earlier messages (such "
                "as thoughts) can't be trained on token by token; change the template, or use rollout.renderer=plain"
            )
        return text[len(expected) :]

    def _end_of_turn(self) -> int:
        suffix = self._suffix("x", _BASE)
        first = self._encode(suffix)[0]
        if first not in self._tokenizer.all_special_ids and first not in self._tokenizer.added_tokens_decoder:
            raise RenderError(
                f"the chat template ends an assistant message with {suffix[:20]!r}, which is no special token, so no "
                "token could end an action; use rollout.renderer=plain"
            )
        return first

    def _check_conversation(self) -> None:
        """Turn by turn must give the tokens that the template gives to the whole conversation."""
        tokens = self.start("Begin.")
        messages = as_messages("Begin.")
        for i, action in enumerate(_SAMPLES):
            answer = f"Answer {i}."
            tokens = self.extend(tokens, self.encode_action(action), answer)
            messages += [{"role": "assistant", "content": action}, *as_messages(answer)]
            whole = self._encode(self._template(messages))
            if tokens != whole:
                at = _first_difference(tokens, whole)
                raise RenderError(
                    f"the chat template is not the sum of its turns: at token {at} of a conversation of {i + 2} turns "
                    f"the whole has {self._around(whole, at)!r}, its turns have {self._around(tokens, at)!r}; change "
                    "the template, or use rollout.renderer=plain"
                )

    def _around(self, tokens: Sequence[int], at: int) -> str:
        return self._tokenizer.decode(list(tokens[max(0, at - 8) : at + 8]))

    def _template(self, messages: list[Message]) -> str:
        try:
            return str(self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))
        except _template_errors() as error:
            raise RenderError(
                f"the chat template refuses messages of roles {[m['role'] for m in messages]}: {error}"
            ) from error

    def _encode(self, text: str) -> list[int]:
        # The template writes the special tokens itself.
        return self._tokenizer.encode(text, add_special_tokens=False)


def render_demonstration(demo: Demonstration, renderer: Renderer) -> Episode:
    """A scripted episode as tokens. No policy wrote it: log-probabilities are 0.0 and versions -1."""
    tokens = renderer.start(demo.observations[0])
    messages = as_messages(demo.observations[0])
    starts, ends = [], []
    for action, observation in zip(demo.actions, demo.observations[1:], strict=True):
        action_tokens = renderer.encode_action(action)
        starts.append(len(tokens))
        ends.append(len(tokens) + len(action_tokens))
        tokens = renderer.extend(tokens, action_tokens, observation)
        messages += [{"role": "assistant", "content": action}, *as_messages(observation)]
    length = sum(ends) - sum(starts)
    return Episode(
        episode_id=f"demonstration-{demo.env}-{demo.seed}",
        env=demo.env,
        task_id=demo.task_id,
        seed=demo.seed,
        worker="demonstrator",
        tokens=np.array(tokens, np.int32),
        action_start=np.array(starts, np.int32),
        action_end=np.array(ends, np.int32),
        reward=np.array(demo.rewards, np.float32),
        logprobs=np.zeros(length, np.float32),
        versions=np.full(length, -1, np.int32),
        terminated=demo.terminated,
        truncated=demo.truncated,
        success=demo.success,
        messages=[dict(message) for message in messages],  # type: ignore[arg-type]
    )


def _newline_tokens(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of all tokens whose text holds a newline."""
    special = set(tokenizer.all_special_ids)
    pieces = tokenizer.get_vocab()
    return {
        index
        for piece, index in pieces.items()
        if index not in special and "\n" in tokenizer.convert_tokens_to_string([piece])
    }


def _first_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The beginning-of-text token where the tokenizer puts one before a text, else nothing."""
    bos = tokenizer.bos_token_id
    return [int(bos)] if bos is not None and tokenizer.encode("a")[:1] == [bos] else []


def _first_difference(one: Sequence[Any], other: Sequence[Any]) -> int:
    for i, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return i
    return min(len(one), len(other))


def _template_errors() -> tuple[type[Exception], ...]:
    from jinja2.exceptions import TemplateError

    return (TemplateError, ValueError, TypeError)
