"""Exact values of a player of Twenty Questions that draws its questions from fixed shares and remembers nothing.

The state of the game is the set of words that agree with all answers, and the number of questions that are left. Each
word of the set is equally likely to be hidden. A set is an integer, with bit i for word i.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from envs.twenty_questions.game import MAX_TURNS, NO, SUBSET, YES, understand
from envs.twenty_questions.table import Thing

SETS = np.arange(1 << len(SUBSET))
ALL = int(SETS[-1])
_SIZE = np.array([int(words).bit_count() for words in SETS])


class Question(NamedTuple):
    """What a question asks: the words for which its answer is yes, and whether that answer ends the game.

    `words` is None for a question that cannot be parsed.
    """

    words: int | None
    guess: bool

    def left(self, words: int, answer: str) -> int:
        """Return those of `words` that agree with `answer`, which the environment gave to this question."""
        if self.words is None or answer.strip() not in (YES, NO):
            return words
        return words & (self.words if answer.strip() == YES else ~self.words)


@lru_cache(maxsize=4096)
def question(text: str) -> Question:
    """Return what the text of an action asks."""
    meant = understand(text.strip())
    if meant is None:
        return Question(None, guess=False)
    if isinstance(meant, Thing):
        return Question(1 << SUBSET.index(meant.word) if meant.word in SUBSET else 0, guess=True)
    return Question(sum(1 << i for i, word in enumerate(SUBSET) if word in meant.true_of), guess=False)


def question_values(later: np.ndarray, asked: Question, gamma: float) -> np.ndarray:
    """Return Q(set, question), float64 [sets], where V of the sets after the answer is `later` [sets]."""
    if asked.words is None:
        return -1.0 + gamma * later
    yes, no = SETS & asked.words, SETS & ~asked.words
    share = _SIZE[yes] / np.maximum(_SIZE, 1)
    if asked.guess:
        return (1.0 - share) * (-1.0 + gamma * later[no])
    return -1.0 + gamma * (share * later[yes] + (1.0 - share) * later[no])


def player_values(shares: Mapping[str, float], gamma: float) -> np.ndarray:
    """Return V of the player that draws each question with its share: float64 [questions left, sets].

    Row 0 is 0, because the twentieth question terminates the game.
    """
    of_question: dict[Question, float] = {}
    for text, share in shares.items():
        of_question[question(text)] = of_question.get(question(text), 0.0) + share
    values = np.zeros((MAX_TURNS + 1, len(SETS)))
    for left in range(1, MAX_TURNS + 1):
        values[left] = sum(share * question_values(values[left - 1], q, gamma) for q, share in of_question.items())
    return values
