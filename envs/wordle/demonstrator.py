"""The scripted player of Wordle: guesses a word that all feedback so far allows, or any word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from envs.base import INVALID_ACTION, Observation
from envs.toolkit.mixed_demonstrator import MixedDemonstrator
from envs.wordle.game import choose_words, read_word, score, score_compat, spell


class WordleDemonstrator(MixedDemonstrator):
    """Plays `Wordle(words=words, compat=compat)`: a word that is still possible with probability `skill`, else any
    word.

    It does not look at the hidden word.
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
            return  # an action of another player that spells no word; it gives no feedback
        feedback = "".join(str(observation).split())
        self._possible = [word for word in self._possible if self._score(guess, word) == feedback]

    def best_actions(self) -> list[str]:
        return [spell(word) for word in self._possible]
