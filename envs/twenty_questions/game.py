"""The environment `TwentyQuestions`: one hidden object, -1 a question, 0 for the right guess, which ends the
episode.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar

from envs.base import INVALID_ACTION, PRIVILEGED, SUCCESS, TASK_ID, EnvSpec, Info, Step
from envs.errors import EnvArgumentError, EnvStateError, nearest
from envs.oracles.base import Enquiry
from envs.oracles.make import make_oracle
from envs.toolkit.argument_checks import check_distinct
from envs.toolkit.hidden_word import choose_hidden_word
from envs.twenty_questions.question_keys import MAX_LENGTH, key, normalise
from envs.twenty_questions.table import Attribute, Table, Thing, load_table

SUBSET = ("football", "dog", "banana", "truck", "pants", "computer", "piano", "chair", "pen", "scissors")
"""The ten words of the ArCHer paper's subset."""

OPENING = "Questions:"
YES = "Yes."
NO = "No."
INVALID = "Invalid question."

INSTRUCTIONS = (
    "You are thinking of this object: {secret}. Another player asks about it. Answer only Yes. or No., or Invalid "
    "question. where the question can't be answered so."
)

MAX_TURNS = 20
CACHED_QUESTIONS = 65_536


@lru_cache(maxsize=CACHED_QUESTIONS)
def _understand(question: str) -> Thing | Attribute | None:
    """Return what a question guesses or asks about, or None if it cannot be parsed. A key is never both."""
    table = load_table()
    found = key(question)
    return table.thing_of_key.get(found) or table.attribute_of_key.get(found)


def understand(question: str) -> Thing | Attribute | None:
    """Return `_understand(question)`; texts too long to be a question are refused, so that they do not fill its
    cache.
    """
    return None if len(question) > MAX_LENGTH else _understand(question)


def _look_up(enquiry: Enquiry) -> str:
    meant = understand(enquiry.question)
    if not isinstance(meant, Attribute):
        return INVALID
    return YES if enquiry.secret in meant.true_of else NO


def read_truth(answer: str) -> bool | None:
    """Return the truth value of an oracle's answer; None if it begins with neither yes nor no."""
    first = normalise(answer[:MAX_LENGTH]).partition(" ")[0]
    return {"yes": True, "no": False}.get(first)


class TwentyQuestions:
    """Twenty Questions over the whole table, or over `words` of it.

    words: words that may be hidden; None for all. Any object may be guessed in both cases.
    noise: probability that the answer to a question about an attribute is flipped. Guesses are always answered truly.
    compat: terminate the episode at the twentieth question, as in the paper, instead of truncating it. A critic
        bootstraps through a truncated end. Both are well-posed, because the state contains the turn.
    oracle: answers questions that are not guesses; a mapping with a `kind` (`envs.oracles.settings`), or None for the
        table.

    `reset(options={"word": ...})` hides that word; otherwise the seed draws it.
    """

    spec: ClassVar[EnvSpec] = EnvSpec(
        id="twenty_questions",
        description="Find which of about 160 everyday objects is meant, by yes/no questions.",
        max_turns=MAX_TURNS,
        reward_range=(-float(MAX_TURNS), 0.0),
    )
    default_words: ClassVar[Sequence[str] | None] = None

    def __init__(
        self,
        *,
        words: Sequence[str] | None = None,
        noise: float = 0.0,
        compat: bool = False,
        oracle: Mapping[str, Any] | None = None,
    ) -> None:
        if not 0.0 <= noise < 0.5:
            raise EnvArgumentError(f"{self.spec.id}: noise is {noise}, must be at least 0 and below 0.5")
        self.noise = noise
        self.compat = compat
        self._questions = 0
        self.words = choose_words(self.spec.id, self.default_words if words is None else words)
        self._table: Table = load_table()
        self._oracle = make_oracle(self.spec.id, oracle, table=_look_up)
        if self._oracle.blocks:
            self.spec = replace(self.spec, isolation="thread")  # type: ignore[misc]
        self._random = random.Random()
        self._word: str | None = None

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[str, Info]:
        """Hide a word. Raises EnvArgumentError for an unknown option or a word that is not in play."""
        self._random = random.Random(seed)
        index = choose_hidden_word(self.spec.id, self.words, self._random, options)
        self._word = self.words[index]
        self._questions = 0
        # A number, because a task id may be shown to the policy.
        return OPENING, self._info(False) | {TASK_ID: f"word-{index:03d}"}

    def step(self, action: str) -> Step:
        """Answer one question. A question that cannot be parsed costs the turn."""
        if self._word is None:
            raise EnvStateError(f"step of {self.spec.id}: the episode has not begun: call reset first")
        self._questions += 1
        answer, info = self._answer(action)
        if info[SUCCESS]:
            return answer, 0.0, True, False, info
        return answer, -1.0, self.compat and self._questions >= MAX_TURNS, False, info

    def _answer(self, action: str) -> tuple[str, Info]:
        assert self._word is not None
        meant = understand(action)
        if isinstance(meant, Thing):
            found = meant.word == self._word
            return YES if found else NO, self._info(found)
        oracle_answer = INVALID
        if normalise(action):
            instructions = INSTRUCTIONS.format(secret=self._word)
            oracle_answer = self._oracle.answer(Enquiry(self.spec.id, self._word, action, instructions))
        truth = read_truth(oracle_answer)
        if truth is None:
            return INVALID, self._info(False) | {INVALID_ACTION: True}
        if self.noise and self._random.random() < self.noise:
            truth = not truth
        return YES if truth else NO, self._info(False)

    def close(self) -> None:
        self._word = None

    def _info(self, success: bool) -> Info:
        return {SUCCESS: success, INVALID_ACTION: False, PRIVILEGED: {"word": self._word}}


class TwentyQuestionsSubset(TwentyQuestions):
    """Twenty Questions over the ten words of the paper's subset."""

    spec: ClassVar[EnvSpec] = EnvSpec(
        id="twenty_questions_subset",
        description="Twenty Questions over the ArCHer paper's ten words.",
        max_turns=MAX_TURNS,
        reward_range=(-float(MAX_TURNS), 0.0),
    )
    default_words: ClassVar[Sequence[str] | None] = SUBSET


def choose_words(env_id: str, words: Sequence[str] | None) -> tuple[str, ...]:
    """Return `words` after checking them against the table; all words for None. Raises EnvArgumentError."""
    known = load_table().things
    if words is None:
        return tuple(known)
    check_distinct(env_id, "words", words)
    for word in words:
        if word not in known:
            raise EnvArgumentError(f"{env_id}: no object {word!r} in the table: {nearest(word, known)}")
    return tuple(words)
