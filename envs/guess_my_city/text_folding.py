"""Text normalization for questions and the table: plain lower-case words, with plurals reduced to singulars."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# Letters that Unicode does not decompose into a plain letter and a mark.
_LETTERS = str.maketrans(
    {"ı": "i", "ł": "l", "Ł": "L", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D", "æ": "ae", "œ": "oe", "ð": "d", "þ": "th"}
)
_APOSTROPHES = re.compile("['’ʼ`´‘]")
_SIGNS = re.compile(r"[\W_]+")
_SMALL = frozenset({"a", "an", "the", "of"})
_KEPT = frozenset({"us", "is", "was", "has", "does", "its", "this", "yes", "les", "las", "los"})


def plain(text: str) -> str:
    """Return a text without accents and apostrophes, with other signs as single spaces: "Xi'an, China" -> "Xian
    China".
    """
    text = unicodedata.normalize("NFKD", text.translate(_LETTERS))
    text = "".join(char for char in text if not unicodedata.combining(char))
    return _SIGNS.sub(" ", _APOSTROPHES.sub("", text)).strip()


def fold(text: str) -> str:
    """Return `plain(text)` in lower case."""
    return plain(text).casefold()


@lru_cache(maxsize=16_384)
def stem(word: str) -> str:
    """Return the singular of a regular plural."""
    if word in _KEPT or len(word) < 4 or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word[:-1] if word.endswith("s") else word


def stems(text: str) -> tuple[str, ...]:
    """Return the words of a text, folded and singular, without articles and "of". Phrases are compared in this form."""
    return tuple(stem(word) for word in fold(text).split() if word not in _SMALL)
