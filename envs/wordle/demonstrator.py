"""The scripted player of Wordle: between any words and the words that all feedback so far allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from envs.base import INVALID_ACTION, Observation
from envs.toolkit.mixed_demonstrator import MixedDemonstrator
from envs.wordle.game import choose_words, read_word, score, score_compat, spell


class WordleDemonstrator(MixedDemonstrator):
    """Plays `Wordle(words=words, compat=compat)`: with probability `skill` a turn one of the words still possible.

    Otherwise it guesses any word of the list. It never looks at the hidden word.
    """

    def __init__(self, *, skill: float, words: Sequence[str] | None = None, compat: bool = False) -> None:
        super().__init__(skill=skill)
        self._words = choose_words(words)
        self._score = score_compat if compat else score
        self._possible = list(self._words)

    def begin(self, observation: Observation, info: Mapping[str, Any], *, seed: int) -> None:
        super().begin(observation, info, seed=seed)
        self._possible = list(self._words)

    def see(self, action: str, observation: Observation, info: Mapping[str, Any]) -> None:
        super().see(action, observation, info)
        guess = read_word(action)
        if guess is None or info[INVALID_ACTION]:
            return  # not a guess of this player's, who knows the words; it told nothing
        feedback = "".join(str(observation).split())
        self._possible = [word for word in self._possible if self._score(guess, word) == feedback]

    def best_actions(self) -> list[str]:
        return [spell(word) for word in self._possible]
