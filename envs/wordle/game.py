"""The game, after LMRL-Gym's Wordle (Abdulhai et al. 2023).

From there come six guesses, -1 a turn and 0 for the right word, a word that isn't in the list costing a turn, letters
set apart by spaces (which lets a tokenizer see them), and feedback of b, y and g. Ours differs in the words, in marking
repeated letters as the newspaper's game does, and in that the sixth guess truncates; `compat=True` undoes the last two.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, ClassVar

from envs.base import INVALID_ACTION, PRIVILEGED, SUCCESS, TASK_ID, VALID_ACTIONS, EnvSpec, Info, Step
from envs.errors import EnvArgumentError, EnvStateError, nearest

OPENING = "Guess the word of five letters. g: right place, y: elsewhere, b: not there."
INVALID = "Invalid word."

LETTERS = 5
MAX_TURNS = 6
MAX_LENGTH = 50
"""Actions longer than this many characters are not read."""

_WORD = re.compile(f"[a-z]{{{LETTERS}}}")


@cache
def load_words() -> tuple[str, ...]:
    """The words of this package, in order."""
    return tuple(files(__package__).joinpath("words.txt").read_text(encoding="utf-8").split())


def read_word(action: str) -> str | None:
    """The five letters that an action spells, with spaces between them or without; None where it spells none."""
    if len(action) > MAX_LENGTH:
        return None
    word = "".join(action.lower().split()).rstrip(".!?")
    return word if _WORD.fullmatch(word) else None


def spell(word: str) -> str:
    """ "c r a n e" for "crane"."""
    return " ".join(word)


def score(guess: str, word: str) -> str:
    """Feedback on a guess, a letter each: g in place, y in the word but elsewhere, b neither.

    A letter that the guess repeats is marked g or y as often as the word has it: places that are right first, then from
    the left.
    """
    pairs = list(zip(guess, word, strict=True))
    left = [w for g, w in pairs if g != w]
    marks = []
    for letter, right in pairs:
        if letter == right:
            marks.append("g")
        elif letter in left:
            left.remove(letter)
            marks.append("y")
        else:
            marks.append("b")
    return "".join(marks)


def score_compat(guess: str, word: str) -> str:
    """Feedback by the original's rule: y wherever the word has the letter, however often the guess repeats it."""
    return "".join("g" if g == w else "y" if g in word else "b" for g, w in zip(guess, word, strict=True))


class Wordle:
    """Find the hidden word: -1 a turn, 0 for the right word, six turns.

    words: the words that may be hidden and guessed, five letters each; None for the list of this package.
    compat: the original's rules, by which the sixth guess ends the game (`terminated`) instead of cutting it short
        (`truncated`), and feedback marks each letter by itself.

    `reset(options={"word": ...})` hides that word; otherwise the seed draws it.
    """

    spec: ClassVar[EnvSpec] = EnvSpec(
        id="wordle",
        description="Find a word of five letters in six guesses.",
        max_turns=MAX_TURNS,
        reward_range=(-float(MAX_TURNS), 0.0),
    )

    def __init__(self, *, words: Sequence[str] | None = None, compat: bool = False) -> None:
        self.words = choose_words(words)
        self.compat = compat
        self._known = frozenset(self.words)
        self._score = score_compat if compat else score
        self._valid = [spell(word) for word in self.words]
        self._word: str | None = None
        self._guesses = 0

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[str, Info]:
        """Hide a word. Raises EnvArgumentError for an option that is unknown or a word that is not in play."""
        index = random.Random(seed).randrange(len(self.words))
        for name, value in (options or {}).items():
            if name != "word":
                raise EnvArgumentError(f"{self.spec.id}: unknown reset option {name!r}: the only one is 'word'")
            if value not in self._known:
                raise EnvArgumentError(f"{self.spec.id}: no word {value!r} in play: {nearest(str(value), self.words)}")
            index = self.words.index(value)
        self._word = self.words[index]
        self._guesses = 0
        # The task's number, not its word: a task id may be shown where the word must not be.
        return OPENING, self._info(False) | {TASK_ID: f"word-{index:03d}"}

    def step(self, action: str) -> Step:
        """Answer one guess. Any string is one; what spells no word of the list is answered so."""
        if self._word is None:
            raise EnvStateError(f"step of {self.spec.id}: the episode has not begun: call reset first")
        self._guesses += 1
        lost = self.compat and self._guesses >= MAX_TURNS
        guess = read_word(action)
        if guess is None or guess not in self._known:
            return INVALID, -1.0, lost, False, self._info(False) | {INVALID_ACTION: True}
        feedback = spell(self._score(guess, self._word))
        if guess == self._word:
            return feedback, 0.0, True, False, self._info(True)
        return feedback, -1.0, lost, False, self._info(False)

    def close(self) -> None:
        self._word = None

    def _info(self, success: bool) -> Info:
        return {
            SUCCESS: success,
            INVALID_ACTION: False,
            VALID_ACTIONS: list(self._valid),
            PRIVILEGED: {"word": self._word},
        }


def choose_words(words: Sequence[str] | None) -> tuple[str, ...]:
    """`words`, checked; the list of this package for None. Raises EnvArgumentError."""
    if words is None:
        return load_words()
    if isinstance(words, str):
        raise EnvArgumentError(f"{Wordle.spec.id}: words is the string {words!r}: give a list of words")
    for word in words:
        if not _WORD.fullmatch(word):
            raise EnvArgumentError(f"{Wordle.spec.id}: {word!r} is no word of {LETTERS} letters from a to z")
    if not words or len(set(words)) != len(words):
        raise EnvArgumentError(f"{Wordle.spec.id}: words must hold at least one word, and each once")
    return tuple(words)
