"""Text of the environment that spells a control token stays text.

A tokenizer turns the spelling of a control token, such as `<|im_end|>`, into that token wherever it occurs. An
environment's text could so end a message and begin another. Where a text spells a control token, it is encoded by a
copy of the tokenizer in which control tokens have other names, which no text contains. All else of the copy is the
same, so that text and control tokens around it are encoded as ever. A text that spells none takes the usual way.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from actors.errors import RenderError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from envs import Message


class ControlTokens:
    """The control tokens of a tokenizer, and encoding that tells them from text that spells them.

    Control tokens are the special tokens, and other added tokens that the chat template writes, such as `<think>` or
    `<tool_call>`. Added tokens that stand for frequent text, such as runs of spaces, are none.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        template = str(tokenizer.chat_template or "")
        self.ids: dict[str, int] = {
            token.content: int(i)
            for i, token in tokenizer.added_tokens_decoder.items()
            if token.content.strip() and (token.special or token.content in template)
        }
        spellings = sorted(self.ids, key=len, reverse=True)
        self._spelled = re.compile("|".join(map(re.escape, spellings)) or r"(?!)")

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text whose control tokens are meant."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def encode_text(self, text: str) -> list[int]:
        """Return the tokens of a text, none of which is a control token."""
        return self.encode(text) if self._spelled.search(text) is None else self._renamed.encode(text)

    def hide(self, messages: Sequence[Message], *, but: Collection[int] = ()) -> tuple[list[Message], dict[str, str]]:
        """Return the messages with placeholders for what spells a control token, and the text of each placeholder.

        The messages at the positions `but` stay. They are actions of the policy, which writes control tokens.
        """
        texts: dict[str, str] = {}

        def placeholder(match: re.Match[str]) -> str:
            name = f"zq{secrets.token_hex(6)}zq"
            texts[name] = match[0]
            return name

        hidden: list[Message] = [
            message
            if position in but or "content" not in message
            else {**message, "content": self._spelled.sub(placeholder, message["content"])}
            for position, message in enumerate(messages)
        ]
        return hidden, texts

    def encode_hidden(self, text: str, texts: dict[str, str]) -> list[int]:
        """Return the tokens of a rendered text whose placeholders stand for `texts`."""
        if not texts:
            return self.encode(text)
        names = self._renamed.names
        either = re.compile("|".join((*map(re.escape, texts), self._spelled.pattern)))
        return self._renamed.encode(either.sub(lambda match: texts.get(match[0]) or names[match[0]], text))

    @cached_property
    def _renamed(self) -> _Renamed:
        return _Renamed(self._tokenizer, self.ids)


class _Renamed:
    """A copy of the tokenizer whose control tokens have other names.

    Attributes:
        names: the new name of each control token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ids: dict[str, int]) -> None:
        salt = secrets.token_hex(8)
        self.names = {content: f"\ue000{salt}{i}\ue001" for content, i in ids.items()}
        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        try:
            self._copy = _copy(json.loads(backend.to_str()), self.names)
        except Exception as error:  # the library raises plain Exception
            raise RenderError(_cannot(tokenizer, f"{type(error).__name__}: {error}")) from error
        # In a copy, the tokens that are not in the model's vocabulary may have other numbers.
        self._ids = {self._copy(name)[0]: ids[content] for content, name in self.names.items()}
        sample = "A b.\n" + "\nOne, two".join(ids) + " 3"
        if self.encode(_replaced(sample, self.names)) != list(tokenizer.encode(sample, add_special_tokens=False)):
            raise RenderError(_cannot(tokenizer, "a copy of it encodes other text differently"))

    def encode(self, text: str) -> list[int]:
        return [self._ids.get(i, i) for i in self._copy(text)]


def _copy(description: dict[str, Any], names: dict[str, str]) -> Callable[[str], list[int]]:
    """Return the encoding of the tokenizer of `description` after control tokens were renamed."""
    from tokenizers import Tokenizer

    for token in description["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = description["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(piece, piece): i for piece, i in vocabulary.items()}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    if "merges" in model:  # pairs, or in older files their texts
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        model["merges"] = [pair for pair in pairs if not {*pair, "".join(pair)} & names.keys()]
    if model.get("unk_token") is not None:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    description |= {"post_processor": None, "truncation": None, "padding": None}
    copy = Tokenizer.from_str(json.dumps(description))
    return lambda text: copy.encode(text, add_special_tokens=False).ids


def _replaced(text: str, names: dict[str, str]) -> str:
    for content in sorted(names, key=len, reverse=True):
        text = text.replace(content, names[content])
    return text


def _cannot(tokenizer: PreTrainedTokenizerBase, why: str) -> str:
    return (
        f"a text of the environment spells a control token, which {type(tokenizer).__name__} cannot encode as text "
        f"({why}); remove the spelling from the environment's text, or use a fast tokenizer"
    )
