"""Print how much of the variance of the return a critic can explain in Twenty Questions, for players of several skills.

The state of the game is the turn and the set of words that agree with all answers. The value of a state is estimated as
the mean return of half of the scripted episodes in it, and measured on the other half. What this leaves unexplained is
the luck of the questions to come, so that no critic explains more than the largest figure of a row.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import parser, print_table, report, say  # isort: skip - sets the threads first

from envs.demonstrations import Demonstration, demonstrate
from envs.twenty_questions.game import TwentyQuestionsSubset

SKILLS = (0.0, 0.05, 0.15, 0.3, 0.5)
EPISODES = {False: 20_000, True: 1_000}
"""Episodes of each skill, in the full form and with --quick."""


class Visit(NamedTuple):
    """A state that an episode passed, and the return from there on."""

    turn: int
    words: frozenset[str]
    ret: float


KNOWN: dict[str, Callable[[Visit], Hashable]] = {
    "turn": lambda visit: visit.turn,
    "count": lambda visit: len(visit.words),
    "turn_and_count": lambda visit: (visit.turn, len(visit.words)),
    "state": lambda visit: (visit.turn, visit.words),
}
"""What a critic may know of a state."""
COLUMNS = {
    "skill": "skill",
    "mean_return": "mean return",
    "turn": "turn",
    "count": "number of words",
    "turn_and_count": "turn and number",
    "state": "turn and words",
}


class Answers:
    """The answer to each question for each hidden word, from the environment itself."""

    def __init__(self) -> None:
        self._env = TwentyQuestionsSubset(compat=True)
        self.words = frozenset(self._env.words)
        self._known: dict[str, dict[str, object]] = {}

    def agreeing(self, words: frozenset[str], question: str, answer: object) -> frozenset[str]:
        """Return those of `words` for which `question` has this answer."""
        if question not in self._known:
            self._known[question] = {word: self._ask(word, question) for word in self.words}
        return frozenset(word for word in words if self._known[question][word] == answer)

    def _ask(self, word: str, question: str) -> object:
        self._env.reset(seed=0, options={"word": word})
        return self._env.step(question)[0]


def visits(episode: Demonstration, answers: Answers) -> list[Visit]:
    """Return the states of an episode in which a question was asked."""
    words, found = answers.words, []
    returns = np.cumsum(episode.rewards[::-1])[::-1]
    for turn, question in enumerate(episode.actions):
        found.append(Visit(turn, words, float(returns[turn])))
        words = answers.agreeing(words, question, episode.observations[turn + 1])
    return found


def explained(train: Sequence[Visit], test: Sequence[Visit], known: Callable[[Visit], Hashable]) -> float:
    """Return the explained variance on `test` of the mean return of `train` where `known` has the same value."""
    groups: defaultdict[Hashable, list[float]] = defaultdict(list)
    for visit in train:
        groups[known(visit)].append(visit.ret)
    everywhere = float(np.mean([visit.ret for visit in train]))
    means = {key: float(np.mean(values)) for key, values in groups.items()}
    error = np.array([visit.ret - means.get(known(visit), everywhere) for visit in test])
    return float(1.0 - error.var() / np.var([visit.ret for visit in test]))


def row(skill: float, episodes: int, answers: Answers, seed: int) -> dict[str, float]:
    """Return the row of one skill."""
    played = list(demonstrate(TwentyQuestionsSubset.spec.id, episodes=episodes, skill=skill, seed=seed, compat=True))
    half = episodes // 2
    train, test = ([v for one in part for v in visits(one, answers)] for part in (played[:half], played[half:]))
    figures = {name: explained(train, test, known) for name, known in KNOWN.items()}
    return {"skill": skill, "mean_return": float(np.mean([sum(one.rewards) for one in played]))} | figures


def main() -> None:
    arguments = parser(__doc__).parse_args()
    answers = Answers()
    rows = [row(skill, EPISODES[arguments.quick], answers, arguments.seed) for skill in SKILLS]
    print_table("Explained variance of the return to come, by what a critic knows", COLUMNS, rows)
    say(f"written to {report('value_ceiling', arguments, rows)}")


if __name__ == "__main__":
    main()
