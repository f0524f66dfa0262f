"""The form of a question: its last sentence, "it" in place of the hidden city, and the kind of question."""

from __future__ import annotations

import re
from typing import Literal

from envs.guess_my_city.text_folding import fold

# Expressions for the hidden city; they become "it".
_PEOPLE_SAY = (
    (r"^(?:(?:so|ok|okay|well|now|then|and|please|sorry|hello|hi|hmm|um|next|first|final|question|my) )+(?=\w)", ""),
    (r"^\d+ ", ""),
    (r"\byoure\b", "you are"),
    (r"\b(?:its|it s)(?= (?:a|an|the|not|in|located)\b)", "it is"),
    (
        r"\b(?:your|this|that|the|my|our) (?:mystery |secret |hidden |home |native |own )?"
        r"(?:city|hometown|home town|town|place|metropolis|answer|location|hometown city|city name)"
        r"(?: (?:that |which |where |in which )?you (?:are|were|live|come|grew|reside|were born)"
        r"(?: (?:from|in|up|up in|living in|thinking of|talking about|located|located in|residing in|based in))?)*",
        "it",
    ),
    (r"\bwhere you (?:are from|live|come from|grew up|are located|are)\b", "it"),
    (r"\byou are from (?=you are from)", ""),
    (r"\b(?:it|that) (?:that |which )?you are from\b", "it"),
    (r"\bis it(?: is it| it| you are from)+\b", "is it"),
)
_SAY = tuple((re.compile(pattern), text) for pattern, text in _PEOPLE_SAY)


_PLACE = r"(?P<place>(?:located |situated |found |based |from |in |within |inside )*)"
_GUESS = re.compile(
    r"^(?:is (?:it|this|that|the name)|are you(?: from)?|do you (?:live|come|reside)|it is|it"
    r"|were you born|guess(?: is)?|i (?:think|guess|say)(?: that)?(?: it is)?"
    r"|could (?:it|this) be|would it be|might it be|can it be)\b ?"
    + _PLACE
    + r"(?:called |named |known as |perhaps |maybe )*(?:city of |the city of |the city )?"
    r"(?P<name>.+?)(?: (?:right|correct|then|itself|by any chance))*$"
)
_YES_NO = re.compile(
    r"^(?:is|are|was|were|does|do|did|has|have|had|can|could|would|will|should|am|isnt|doesnt|arent|it is|you)\b"
)
_OPEN = re.compile(
    r"^(?:(?:can|could|would|will) you (?:please )?(?:also )?"
    r"(?:tell|describe|name|give|share|provide|say|list|explain|mention|elaborate)"
    r"|do you know (?:what|which|who)|do you have a (?:favou?rite|specific)|tell|describe|name|give|share|list|mention"
    r"|what|which|where|who|whom|whose|when|how|why|(?:in|on|at|by|for|from|of|during|near) (?:what|which)|whats)\b"
)
_NAME = re.compile(
    "|".join(
        (
            r"\b(?:what|which) (?:is |are )?(?:the )?(?:exact |full |actual )?"
            r"(?:name of it|it called|it named|its name|city|cities)\b",
            r"\b(?:what is|whats) it$",
            r"\b(?:first|last) letter",
            r"\bname (?:that )?(?:start|begin|end|rhyme|contain)",
            r"\b(?:start|begin|end)s? with",
            r"\bhow many (?:letters|syllables|words)",
            r"\bname of (?:the|your) city\b",
            r"\b(?:tell me|say|reveal) (?:the|its|your) name\b",
            r"\bspell\b",
        )
    )
)
_WHETHER = re.compile(r"^(?:(?:can|could|would) you )?(?:please )?(?:tell me|say|confirm) (?:if|whether|that) (?=\w)")


def last_sentence(text: str) -> str:
    """Return the sentence that ends at the last question mark; the last sentence of the text if there is none."""
    head, mark, _ = text.rpartition("?")
    lines = (head if mark else text).strip().strip("\"'").splitlines()
    line = lines[-1] if lines else ""
    # The question follows a colon; "St." does not end a sentence.
    return re.split(r":\s*|(?<!\bSt)(?<!\bst)[.!?]+\s+", line)[-1].strip()


def canonical(sentence: str) -> str:
    """Return a folded sentence with "it" in place of expressions for the hidden city."""
    text = fold(sentence)
    for pattern, replacement in _SAY:
        text = pattern.sub(replacement, text).strip()
    return _WHETHER.sub("", re.sub(" +", " ", text))


def ask_kind(text: str) -> Literal["name", "open", "yes/no"] | None:
    """Return whether a canonical text asks for the city's name, an open question or a yes/no question; None if it asks
    nothing.
    """
    if _NAME.search(text):
        return "name"
    if _OPEN.match(text):
        return "open"
    return "yes/no" if _YES_NO.match(text) else None


def guess_parts(text: str) -> tuple[str, bool] | None:
    """Return the guess in a canonical text and whether it says "in": ("paris", False) for "is it paris"; else None."""
    match = _GUESS.match(text)
    return None if match is None else (match["name"], bool(match["place"]))
