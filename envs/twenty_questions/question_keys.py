"""Plain-English questions to keys: two questions that ask the same thing get the same key.

The table's own questions go through `key` as the player's do, so a question is understood when, small words and
grammar set aside, it is one that the table lists. Nothing is guessed at: what matches no key is not understood.
"""

from __future__ import annotations

import re
import unicodedata

MAX_LENGTH = 200
"""Questions longer than this many characters are not read."""

_Rule = tuple[re.Pattern[str], str]


def _rules(*pairs: tuple[str, str]) -> tuple[_Rule, ...]:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in pairs)


_AUXILIARY = "(?:can|could|would|should|will|might|may|must|do|did|does)"

# Order matters: each rule sees what the rules before it left.
_WORDS = _rules(
    # What people say before the question itself.
    (r"^(?:(?:so|ok|okay|well|um|hmm|and|now|then|please|maybe|perhaps|tell me|i wonder|if|whether) )+", ""),
    (r"^(?:let me guess|my guess is|i guess|i think|i say|i am guessing)(?: that)? ", "it is "),
    (r"^it is it is ", "it is "),
    # Who and what is spoken of.
    (r"\b(?:the|this|that|your|these|those) (?:object|thing|item|word|answer|secret|mystery)s?\b", "it"),
    (r"^(is|does|can|could|would|will|has|are|do) (?:this|that|these|those|they)\b", r"\1 it"),
    (r"^are it\b", "is it"),
    (r"^do it\b", "does it"),
    (r"\bthem\b", "it"),
    (r"\b(?:human being|human|man|woman|adult)$", "person"),
    (r"\b(?:people|someone|somebody|a person|a human|humans|one|i|we|most people|anyone)\b(?= )", "you"),
    # Small words that change nothing here.
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
    """Lower case, letters and digits alone, single spaces, contractions opened; "" where there is nothing to read."""
    if len(text) > MAX_LENGTH:
        return ""
    text = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    text = text.replace("it's", "it is").replace("i'm", "i am").replace("'", "")
    return re.sub(r"[\W_]+", " ", text).strip()


def key(question: str) -> str:
    """The key of a question; "" for a text that holds no words or too many."""
    text = normalise(question)
    for pattern, replacement in _WORDS:
        text = pattern.sub(replacement, text)
    text = text.strip()
    for pattern, replacement in _SHAPES:
        text = pattern.sub(replacement, text)
    return text.strip()


def guess_keys(name: str) -> set[str]:
    """Keys of the guesses of a name, in the singular and the regular plurals."""
    words = normalise(name)
    plurals = {words, words + "s", words + "es"}
    if words.endswith("y"):
        plurals.add(words[:-1] + "ies")
    return {key(f"is it a {form}") for form in plurals}
