"""Maps a question in plain English to a key; questions that ask the same thing have the same key.

The questions of the table and those of the player are mapped by the same function `key`. A question is understood if,
apart from small words and grammar, the table lists it. A question without a matching key is not understood.
"""

from __future__ import annotations

import re
import unicodedata

MAX_LENGTH = 200
"""Longer questions are refused, in characters."""

_Rule = tuple[re.Pattern[str], str]


def _rules(*pairs: tuple[str, str]) -> tuple[_Rule, ...]:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in pairs)


_AUXILIARY = "(?:can|could|would|should|will|might|may|must|do|did|does)"

# The order matters: each rule is applied to the result of the rules before it.
_WORDS = _rules(
    # Phrases before the question itself.
    (r"^(?:(?:so|ok|okay|well|um|hmm|and|now|then|please|maybe|perhaps|tell me|i wonder|if|whether) )+", ""),
    (r"^(?:let me guess|my guess is|i guess|i think|i say|i am guessing)(?: that)? ", "it is "),
    (r"^it is it is ", "it is "),
    # References to the object and to people.
    (r"\b(?:the|this|that|your|these|those) (?:object|thing|item|word|answer|secret|mystery)s?\b", "it"),
    (r"^(is|does|can|could|would|will|has|are|do) (?:this|that|these|those|they)\b", r"\1 it"),
    (r"^are it\b", "is it"),
    (r"^do it\b", "does it"),
    (r"\bthem\b", "it"),
    (r"\b(?:human being|human|man|woman|adult)$", "person"),
    (r"\b(?:people|someone|somebody|a person|a human|humans|one|i|we|most people|anyone)\b(?= )", "you"),
    # Small words that do not change the meaning.
    (
        r"\b(?:usually|normally|typically|often|generally|commonly|mostly|mainly|primarily|sometimes|ever|really"
        r"|actually|likely|possibly|probably|perhaps|also|just|very|quite|a bit|kind of a?|sort of a?|type of a?"
        r"|kinds of|sorts of|types of|piece of|pieces of|form of|example of|item of|article of|a pair of|pair of"
        r"|pairs of|considered|classified as|known as|called)\b",
        " ",
    ),
    (r"\b(?:a|an|the|any|some|its|your|my|ones)\b", " "),
    (r"\bcolor", "colour"),
    (r"\bgray\b", "grey"),
    (r"\bjewell?e?ry\b", "jewelry"),
    (r" +", " "),
)

_SHAPES = _rules(
    (r"^(?:would you say|would you call|do you think|is it true|am (?:i|you) right)(?: that)? it(?: is)? ", "is it "),
    (r"^(?:it is|would it be|could it be|might it be|was it|can it be|is it it) ", "is it "),
    (r"^is it (?:something|object|thing|item) ", "is it "),
    # "Is it something (that) you can sit on?", "Is it used by people to ..."
    (rf"^is it (?:that |which )?you {_AUXILIARY} (.+)$", r"do you \1 it"),
    (r"^is it (?:that|which) you (.+)$", r"do you \1 it"),
    (r"^is it you (.+)$", r"do you \1 it"),
    (r"^is it (?:that |which )(?:is|are) ", "is it "),
    (r"^is it (?:that |which )has ", "does it have "),
    (r"^is it (?:that |which )(?:can|could|will) ", "does it "),
    (r"^is it with ", "does it have "),
    (r"^is it possible to ", "do you "),
    (r"^is it possible for you to ", "do you "),
    (rf"^{_AUXILIARY} you ", "do you "),
    (rf"^{_AUXILIARY} it ", "does it "),
    (r"^does it be ", "is it "),
    (r"^has it (?:got )?", "does it have "),
    (r"^does it (?:contain|include|come with|possess) ", "does it have "),
    (r"^(does it have .+) (?:on|in|to|inside) it$", r"\1"),
    (r"^is there (.+) (?:on|in|to|inside) it$", r"does it have \1"),
    (r"^does it have (?:at least one|one or more|more than one|lots of|many) ", "does it have "),
    (r"^is it made (?:out of|from|up of|with|in)\b", "is it made of"),
    (r"^does it consist of ", "is it made of "),
    (r"^is it (?:partly|partially|entirely|all|largely) made of ", "is it made of "),
    (r"^(?:do|does) you use it (?:for|to|in|as|when|while) ", "is it used for "),
    (r"^is it used (?:by you )?(?:for|to|in|as|when|while) ", "is it used for "),
    (r"^do you (?:find|see|keep|store|have|put) it (?:in|inside|around|at|on) ", "is it found in "),
    (r"^is it (?:found|kept|stored|seen|located) (?:in|inside|around|at|on) ", "is it found in "),
    (r"^does it belong (?:in|inside|at|on) ", "is it found in "),
    (r"^(is it .+) in colour$", r"\1 coloured"),
    (r"^is it colour (\w+)$", r"is it \1 coloured"),
    (r"^(is it .+?)(?: (?:object|thing|item|something|product))$", r"\1"),
)


def normalise(text: str) -> str:
    """Return the text in lower case, with letters and digits only, single spaces and contractions expanded; "" if it is
    too long.
    """
    if len(text) > MAX_LENGTH:
        return ""
    text = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    text = text.replace("it's", "it is").replace("i'm", "i am").replace("'", "")
    return re.sub(r"[\W_]+", " ", text).strip()


def key(question: str) -> str:
    """Return the key of a question; "" for a text without words or a text that is too long."""
    text = normalise(question)
    for pattern, replacement in _WORDS:
        text = pattern.sub(replacement, text)
    text = text.strip()
    for pattern, replacement in _SHAPES:
        text = pattern.sub(replacement, text)
    return text.strip()


def guess_keys(name: str) -> set[str]:
    """Return the keys of the guesses of a name, in the singular and in regular plurals."""
    words = normalise(name)
    plurals = {words, words + "s", words + "es"}
    if words.endswith("y"):
        plurals.add(words[:-1] + "ies")
    return {key(f"is it a {form}") for form in plurals}
