"""Games written in Inform: what of the player's words may reach them, and what they say.

One command of the game's world a turn, in plain letters. Games compiled with Inform's debugging verbs, as Detective,
let a player fetch anything (`purloin`), go anywhere (`gonear`), look behind the scenes (`tree`, `scope`, `showobj`) or
hang the interpreter (`showverb`). Commands to the interpreter rather than the game (`save`, `restart`, `undo`), those
that change the telling (`brief`) and what TextWorld adds for itself (`tw-...`) are closed as well.
"""

from __future__ import annotations

import re
from string import ascii_lowercase

MAX_LENGTH = 100
"""Longer actions are not read; the interpreter's own buffer holds 198 bytes."""
WORD_LENGTH = 9
"""Letters of a word that the game's parser looks at."""

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
"""Verbs that no action may begin with, cut to the letters that the parser looks at."""

# Messages of the library's parser, of Inform 6 and 7.
_NOT_UNDERSTOOD = re.compile(
    r"not a verb I recogni[sz]e|I didn't understand|I only understood you as far|I beg your pardon"
    r"|can't begin with a comma|I didn't get|You excepted something not included|Nothing to do!"
    r"|seem to have said too little"
)
_READABLE = re.compile(r"[a-z0-9 ,'?!-]+")


def read_command(action: str) -> str | None:
    """The command as the game may read it, or None where it may not: see CLOSED.

    Full stops and "then" would put several commands into one turn. After a comma a command to someone may follow, so
    each part is looked at by itself.
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
    """Whether a game's answer is not that it doesn't understand."""
    return _NOT_UNDERSTOOD.search(text) is None


def tidy(text: str) -> str:
    """A game's text without empty lines and spaces at the ends of lines."""
    return "\n".join(line for line in (line.strip() for line in text.splitlines()) if line)


def _leading_letters(word: str) -> str:
    """What of a word the parser may see: to it a word of eight letters and the same with a digit after it are one."""
    return word[: len(word) - len(word.lstrip(ascii_lowercase))][:WORD_LENGTH]
