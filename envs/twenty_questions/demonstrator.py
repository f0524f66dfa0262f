"""The scripted player of Twenty Questions: asks the most informative question, or a random one.

With probability `skill` it asks the question that splits the possible words most evenly; among equal ones it prefers a
guess, which may end the game. Otherwise it asks any of its questions at random, repeats included. All answers narrow
the possible words, those to random questions too.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from envs.base import Observation
from envs.twenty_questions.game import NO, YES, TwentyQuestions, TwentyQuestionsSubset, choose_words
from envs.twenty_questions.table import load_table


class TwentyQuestionsDemonstrator:
    """Plays `TwentyQuestions(words=words, noise=noise)`. It does not look at the hidden word.

    Its questions are one guess per word, and the attributes that split the words in a new way. An attribute of all or
    no words gives no information, one that isolates a single word gives no more than a guess, and of attributes with
    the same split only the first in the table is asked.

    With noise, an answer may be wrong. When no word is left, all words that were not guessed become possible again.
    """

    env: ClassVar[type[TwentyQuestions]] = TwentyQuestions

    def __init__(
        self,
        *,
        skill: float,
        words: Sequence[str] | None = None,
        noise: float = 0.0,
        compat: bool = False,
        oracle: Mapping[str, Any] | None = None,
    ) -> None:
        del compat, oracle  # arguments of the environment; the table is the model of its answers
        self.skill = skill
        self.noise = noise
        self.words = choose_words(self.env.spec.id, self.env.default_words if words is None else words)
        self.everything = (1 << len(self.words)) - 1
        self.guesses = self._guesses()
        self.questions = self.guesses | self._attribute_questions()
        self._texts = tuple(self.questions)
        self._possible = self._not_guessed = self.everything
        self._random = random.Random()

    def begin(self, observation: Observation, info: Mapping[str, Any], *, seed: int) -> None:
        self._possible = self._not_guessed = self.everything
        # Independent of the random stream of the environment, which drew the word from the same seed.
        self._random = random.Random(f"asker {seed}")

    def act(self) -> str:
        if self._random.random() >= self.skill:
            return self._random.choice(self._texts)
        total = self._possible.bit_count()
        if total <= 2:
            best = [q for q, mask in self.guesses.items() if mask & self._possible]
            return self._random.choice(best)
        best, best_gap = [], total + 1
        for question, mask in self.questions.items():  # guesses come first
            gap = abs(total - 2 * (mask & self._possible).bit_count())
            if gap < best_gap:
                best, best_gap = [question], gap
            elif gap == best_gap and (question in self.guesses) == (best[0] in self.guesses):
                best.append(question)
        return self._random.choice(best)

    def see(self, action: str, observation: Observation, info: Mapping[str, Any]) -> None:
        mask = self.questions[action]
        if observation == YES:
            self._possible &= mask
        elif observation == NO:
            self._possible &= ~mask
            if action in self.guesses:
                self._not_guessed &= ~mask
        if not self._possible:
            self._possible = self._not_guessed or self.everything

    def _guesses(self) -> dict[str, int]:
        """Return guess -> bit mask of the words that it names (bit i for word i)."""
        things = load_table().things
        return {things[word].guess: 1 << i for i, word in enumerate(self.words)}

    def _attribute_questions(self) -> dict[str, int]:
        """Return question -> bit mask of the words for which it is true."""
        found: dict[str, int] = {}
        splits: set[frozenset[int]] = set()
        for attribute in load_table().attributes.values():
            mask = sum(1 << i for i, word in enumerate(self.words) if word in attribute.true_of)
            rest = self.everything & ~mask
            split = frozenset({mask, rest})
            if min(mask.bit_count(), rest.bit_count()) > 1 and split not in splits:
                splits.add(split)
                found[attribute.question] = mask
        return found


class TwentyQuestionsSubsetDemonstrator(TwentyQuestionsDemonstrator):
    """Plays `TwentyQuestionsSubset`."""

    env: ClassVar[type[TwentyQuestions]] = TwentyQuestionsSubset
