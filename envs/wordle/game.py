"""The environment `Wordle`, after LMRL-Gym's Wordle (Abdulhai et al. 2023).

As in the original: six guesses, -1 a turn and 0 for the right word, a turn for a word that is not in the list, letters
separated by spaces (so that a tokenizer sees them), and feedback of b, y and g. Different: the word list, repeated
letters are marked as in the newspaper's game, and the sixth guess truncates the episode. `compat=True` restores the
original's rule for the last two.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, ClassVar

from envs.base import INVALID_ACTION, PRIVILEGED, SUCCESS, TASK_ID, VALID_ACTIONS, EnvSpec, Info, Step
from envs.errors import EnvArgumentError, EnvStateError
from envs.toolkit.argument_checks import check_distinct
from envs.toolkit.hidden_word import choose_hidden_word

OPENING = "Guess the word of five letters. g: right place, y: elsewhere, b: not there."
INVALID = "Invalid word."

LETTERS = 5
MAX_TURNS = 6
MAX_LENGTH = 50
"""Longer actions are refused, in characters."""

_WORD = re.compile(f"[a-z]{{{LETTERS}}}")


@cache
def load_words() -> tuple[str, ...]:
    """Return the word list of this package, in order."""
    return tuple(files(__package__).joinpath("words.txt").read_text(encoding="utf-8").split())


def read_word(action: str) -> str | None:
    """Return the five letters that an action spells, with or without spaces between them, or None."""
    if len(action) > MAX_LENGTH:
        return None
    word = "".join(action.lower().split()).rstrip(".!?")
    return word if _WORD.fullmatch(word) else None


def spell(word: str) -> str:
    """Return a word with spaces between its letters: "c r a n e" for "crane"."""
    return " ".join(word)


def score(guess: str, word: str) -> str:
    """Return the feedback on a guess, one mark per letter: g in place, y elsewhere in the word, b not in the word.

    A letter that the guess repeats is marked g or y at most as often as the word contains it: right places first, then
    from the left.
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
    """Return feedback by the original's rule: y for each letter that the word contains, repeated or not."""
    return "".join("g" if g == w else "y" if g in word else "b" for g, w in zip(guess, word, strict=True))


class Wordle:
    """Find the hidden word: -1 a turn, 0 for the right word, six turns.

    words: words of five letters that may be hidden and guessed; None for the list of this package.
    compat: use the original's rules: the sixth guess terminates the episode instead of truncating it, and feedback
        marks each letter independently.

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
        """Hide a word. Raises EnvArgumentError for an unknown option or a word that is not in play."""
        index = choose_hidden_word(self.spec.id, self.words, random.Random(seed), options)
        self._word = self.words[index]
        self._guesses = 0
        # A number, because a task id may be shown to the policy.
        return OPENING, self._info(False) | {TASK_ID: f"word-{index:03d}"}

    def step(self, action: str) -> Step:
        """Answer one guess. An action that spells no word of the list costs the turn."""
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
    """Return `words` after checking them; the list of this package for None. Raises EnvArgumentError."""
    if words is None:
        return load_words()
    check_distinct(Wordle.spec.id, "words", words)
    for word in words:
        if not _WORD.fullmatch(word):
            raise EnvArgumentError(f"{Wordle.spec.id}: {word!r} is not a word of {LETTERS} letters from a to z")
    return tuple(words)
