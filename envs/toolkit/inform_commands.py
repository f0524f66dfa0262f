"""Filters commands for games written in Inform, and cleans the texts of these games.

One turn passes one command of the game world, in plain letters. Games compiled with Inform's debugging verbs, such as
Detective, would let a player fetch any object (`purloin`), go anywhere (`gonear`), read hidden state (`tree`, `scope`,
`showobj`) or hang the interpreter (`showverb`). `CLOSED` refuses these verbs, commands to the interpreter (`save`,
`restart`, `undo`), commands that change the level of detail (`brief`), and TextWorld's own commands (`tw-...`).
"""

from __future__ import annotations

import re
from string import ascii_lowercase

MAX_LENGTH = 100
"""Longer actions are refused; the buffer of the interpreter holds 198 bytes."""
WORD_LENGTH = 9
"""Number of letters of a word that the parser of the game reads."""

DEBUGGING = (
    "abstract actions changes daemons gonear goto messages purloin random recording replay routines scope showobj "
    "showverb showheap showdict timers trace tree xpurloin xabstract"
)
META = (
    "about amusing author brief credits die full fullscore help hint hints info information license long "
    "manual menu normal noscript notify nouns o objects oops places pronouns q quit restart restore restrict save "
    "score script short superbrief terminate transcript undo unscript verbose verify version win lose"
)
CLOSED = frozenset(word[:WORD_LENGTH] for word in f"{DEBUGGING} {META}".split())
"""Verbs that an action must not begin with, cut to the letters that the parser reads."""

# Messages of the library parsers of Inform 6 and 7.
_NOT_UNDERSTOOD = re.compile(
    r"not a verb I recogni[sz]e|I didn't understand|I only understood you as far|I beg your pardon"
    r"|can't begin with a comma|I didn't get|You excepted something not included|Nothing to do!"
    r"|seem to have said too little"
)
_READABLE = re.compile(r"[a-z0-9 ,'?!-]+")


def read_command(action: str) -> str | None:
    """Return the command to pass to the game, or None if it must not be passed (see `CLOSED`).

    Full stops and "then" would put several commands into one turn. A comma may start a command to a character, so each
    part between commas is checked.
    """
    if len(action) > MAX_LENGTH:
        return None
    text = " ".join(action.lower().split()).rstrip(" .!")
    if not _READABLE.fullmatch(text):
        return None
    for part in text.split(","):
        words = part.split()
        if not words or "then" in words or _leading_letters(words[0]) in CLOSED or words[0].startswith("tw-"):
            return None
    return text


def is_understood(text: str) -> bool:
    """Return whether a game's answer differs from the parser's messages for a command that it cannot parse."""
    return _NOT_UNDERSTOOD.search(text) is None


def tidy(text: str) -> str:
    """Return a game's text without empty lines and without spaces at the ends of lines."""
    return "\n".join(line for line in (line.strip() for line in text.splitlines()) if line)


def _leading_letters(word: str) -> str:
    """Return the part of a word that the parser reads: letters up to the first other character, at most WORD_LENGTH."""
    return word[: len(word) - len(word.lstrip(ascii_lowercase))][:WORD_LENGTH]
