"""Thoughts: the part of an action that the policy writes for itself, and that the environment does not see."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from actors.config import RolloutConfig
from actors.errors import RenderError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Markers = tuple[str, str]

KNOWN: tuple[Markers, ...] = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
    ("<thinking>", "</thinking>"),
)
"""The markers around the thoughts of published models."""


def find_markers(config: RolloutConfig, tokenizer: PreTrainedTokenizerBase) -> Markers | None:
    """Return the configured markers, else those that the chat template or the tokenizer has; None if there are none."""
    if config.thought_markers is not None:
        return config.thought_markers
    template = str(tokenizer.chat_template or "")
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    return next((known for known in KNOWN if known[1] in template or known[1] in added), None)


class Thoughts:
    """The thoughts of one chat model.

    An action is a thought, the marker of its end, and the answer. An action without the marker is all answer, unless
    it begins with the marker of the beginning or the generation prompt ends with it: then its thought never ended.

    Args:
        prompt: text of a generation prompt.

    Attributes:
        end_id: the token of the marker of the end; None if the tokenizer encodes it as several tokens.
        opened: whether the generation prompt begins a thought.
    """

    def __init__(self, markers: Markers, prompt: str, encode: Callable[[str], list[int]]) -> None:
        self.begin, self.end = markers
        ids = encode(self.end)
        self.end_id = ids[0] if len(ids) == 1 else None
        _, found, behind = prompt.rpartition(self.begin)
        self.opened = bool(found) and not behind.strip()

    def split(self, text: str) -> tuple[str, str]:
        """Return the thought of an action, with its markers and the space behind it, and the answer."""
        thought, answer = self.closed(text)
        if thought or not (self.opened or text.lstrip().startswith(self.begin)):
            return thought, answer
        return text, ""

    def closed(self, text: str) -> tuple[str, str]:
        """Return the same for an action in which a thought without an end is part of the answer."""
        _, found, answer = text.partition(self.end)
        if not found:
            return "", text
        stripped = answer.lstrip()
        return text[: len(text) - len(stripped)], stripped

    def closing(self) -> str:
        """Return the text before an answer without a thought: it ends the thought that the prompt begins."""
        return f"{self.end}\n\n" if self.opened else ""


def check_budget(config: RolloutConfig, thoughts: Thoughts | None) -> None:
    """Raise RenderError if the settings of thoughts do not fit the model, whose `thoughts` are None if it has none."""
    budget = config.sampling.thought_tokens
    asked = "rollout.thoughts=drop" if config.thoughts == "drop" else "rollout.sampling.thought_tokens"
    if thoughts is None and (budget is not None or config.thoughts == "drop"):
        raise RenderError(
            f"`{asked}` is set, but neither the chat template nor the tokenizer has a known marker of a thought's end; "
            "set rollout.thought_markers, such as ['<think>', '</think>'], or leave it out"
        )
    if thoughts is not None and budget is not None and thoughts.end_id is None:
        raise RenderError(
            f"`rollout.sampling.thought_tokens` is set, but the tokenizer encodes the end of a thought, "
            f"{thoughts.end!r}, as several tokens, so that an engine cannot count from it; add it to the tokenizer as "
            "one token, or leave the budget out and raise rollout.sampling.max_tokens"
        )
