"""The game: one hidden word, -1 a question, 0 for the right guess that ends it."""

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
    """What a question guesses or asks about, or None where it isn't understood. Guesses and attributes never clash."""
    table = load_table()
    found = key(question)
    return table.thing_of_key.get(found) or table.attribute_of_key.get(found)


def understand(question: str) -> Thing | Attribute | None:
    """`_understand` with its cache kept clear of texts too long to be a question."""
    return None if len(question) > MAX_LENGTH else _understand(question)


def _look_up(enquiry: Enquiry) -> str:
    meant = understand(enquiry.question)
    if not isinstance(meant, Attribute):
        return INVALID
    return YES if enquiry.secret in meant.true_of else NO


def read_truth(answer: str) -> bool | None:
    """What an oracle's answer comes to; None where it begins with neither yes nor no."""
    first = normalise(answer[:MAX_LENGTH]).partition(" ")[0]
    return {"yes": True, "no": False}.get(first)


class TwentyQuestions:
    """Twenty Questions over the whole table, or over `words` of it.

    words: the words that may be hidden; None for all of them. Any object may be guessed either way.
    noise: probability that the answer to a question about an attribute is flipped. Guesses are always answered truly.
    compat: the paper's rule, by which the twentieth question ends the game (`terminated`: nothing follows a lost game)
        instead of cutting it short (`truncated`: a critic bootstraps from what would have followed). The turn is plain
        in the state here, so both are well-posed.
    oracle: who answers questions that aren't guesses, a mapping with a `kind` (`envs.oracles`); None for the table.

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
        """Hide a word. Raises EnvArgumentError for an option that is unknown or a word that is not in play."""
        self._random = random.Random(seed)
        index = self._random.randrange(len(self.words))
        for name, value in (options or {}).items():
            if name != "word":
                raise EnvArgumentError(f"{self.spec.id}: unknown reset option {name!r}: the only one is 'word'")
            if value not in self.words:
                raise EnvArgumentError(f"{self.spec.id}: no word {value!r} in play: {nearest(str(value), self.words)}")
            index = self.words.index(value)
        self._word = self.words[index]
        self._questions = 0
        # The task's number, not its word: a task id may be shown where the word must not be.
        return OPENING, self._info(False) | {TASK_ID: f"word-{index:03d}"}

    def step(self, action: str) -> Step:
        """Answer one question. Any string is one; what isn't understood is answered so."""
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
        said = INVALID
        if normalise(action):
            instructions = INSTRUCTIONS.format(secret=self._word)
            said = self._oracle.answer(Enquiry(self.spec.id, self._word, action, instructions))
        truth = read_truth(said)
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
    """`words`, checked against the table; all of its words for None. Raises EnvArgumentError."""
    known = load_table().things
    if words is None:
        return tuple(known)
    if isinstance(words, str):
        raise EnvArgumentError(f"{env_id}: words is the string {words!r}: give a list of words")
    for word in words:
        if word not in known:
            raise EnvArgumentError(f"{env_id}: no object {word!r} in the table: {nearest(word, known)}")
    if not words or len(set(words)) != len(words):
        raise EnvArgumentError(f"{env_id}: words must hold at least one word, and each once")
    return tuple(words)
