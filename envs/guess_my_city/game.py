"""The game, after LMRL-Gym's Guess My City (Abdulhai et al. 2023): -1 a question, 0 for the right guess that ends it.

From there come the game, the reward and the 20 turns. Ours differs in that answers come from a table of facts, say
"I don't know." where it is silent, and never tell the city's name, and in what counts as a guess (`compat`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from envs.base import INVALID_ACTION, PRIVILEGED, SUCCESS, TASK_ID, EnvSpec, Info, Step
from envs.errors import EnvArgumentError, EnvStateError, nearest
from envs.guess_my_city.answers import UNKNOWN, answer
from envs.guess_my_city.question_parser import MAX_LENGTH, Guess, read
from envs.guess_my_city.table import City, load_table
from envs.guess_my_city.text_folding import fold
from envs.oracles.base import Enquiry
from envs.oracles.make import make_oracle

OPENING = "Questions:"
INVALID = "Invalid question."

INSTRUCTIONS = (
    "You are from {secret}. Another player asks about your city to find out which it is. Answer truthfully in one "
    "short sentence, beginning with Yes or No where the question can be answered so. Never name the city, not even "
    "within another name."
)
LONGEST_ANSWER = 400
"""Characters of an oracle's answer."""

MAX_TURNS = 20
COMPAT_LENGTH = 10_000
"""By the paper's rule the city is looked for in so many characters of a question, and not beyond."""


def _look_up(enquiry: Enquiry) -> str:
    reading = read(enquiry.question)
    return INVALID if reading is None else answer(load_table().cities[enquiry.secret], reading)


class GuessMyCity:
    """Somebody is from one of about 90 large cities; find out which.

    cities: the cities that may be hidden, by name; None for all. Any city may be guessed either way.
    compat: the paper's rules: a question that holds the city's name anywhere, whatever it asks, guesses it, and the
        twentieth question ends the game (`terminated`) instead of cutting it short (`truncated`).
    oracle: who answers questions that aren't guesses, a mapping with a `kind` (`envs.oracles`); None for the table. An
        answer that tells the city is passed over.

    `reset(options={"city": ...})` hides that city; otherwise the seed draws it.
    """

    spec: ClassVar[EnvSpec] = EnvSpec(
        id="guess_my_city",
        description="Find which of about 90 large cities somebody is from, by asking about it.",
        max_turns=MAX_TURNS,
        reward_range=(-float(MAX_TURNS), 0.0),
    )

    def __init__(
        self, *, cities: Sequence[str] | None = None, compat: bool = False, oracle: Mapping[str, Any] | None = None
    ) -> None:
        self.compat = compat
        self._oracle = make_oracle(self.spec.id, oracle, table=_look_up)
        if self._oracle.blocks:
            self.spec = replace(self.spec, isolation="thread")  # type: ignore[misc]
        self.cities = choose_cities(cities)
        self._questions = 0
        self._city: City | None = None

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[str, Info]:
        """Hide a city. Raises EnvArgumentError for an option that is unknown or a city that is not in play."""
        index = random.Random(seed).randrange(len(self.cities))
        for name, value in (options or {}).items():
            if name != "city":
                raise EnvArgumentError(f"{self.spec.id}: unknown reset option {name!r}: the only one is 'city'")
            city = load_table().city_of_name.get(fold(str(value)))
            if city is None or city not in self.cities:
                known = [city.name for city in self.cities]
                raise EnvArgumentError(f"{self.spec.id}: no city {value!r} in play: {nearest(str(value), known)}")
            index = self.cities.index(city)
        self._city = self.cities[index]
        self._questions = 0
        # The task's number, not its name: a task id may be shown where the city must not be.
        return OPENING, self._info(False) | {TASK_ID: f"city-{index:03d}"}

    def step(self, action: str) -> Step:
        """Answer one question. Any string is one; what isn't understood is answered so."""
        if self._city is None:
            raise EnvStateError(f"step of {self.spec.id}: the episode has not begun: call reset first")
        self._questions += 1
        text, info = self._answer(self._city, action)
        if info[SUCCESS]:
            return text, 0.0, True, False, info
        return text, -1.0, self.compat and self._questions >= MAX_TURNS, False, info

    def close(self) -> None:
        self._city = None

    def _answer(self, city: City, action: str) -> tuple[str, Info]:
        if self.compat and city.names[0] in fold(action[:COMPAT_LENGTH]):
            return answer(city, Guess(city)), self._info(True)
        reading = read(action)
        if isinstance(reading, Guess):
            return answer(city, reading), self._info(reading.city is city)
        if len(action) > MAX_LENGTH or not fold(action):
            return INVALID, self._info(False) | {INVALID_ACTION: True}
        instructions = INSTRUCTIONS.format(secret=city.name)
        said = " ".join(self._oracle.answer(Enquiry(self.spec.id, city.name, action, instructions)).split())
        if not said or city.named_in(said):
            said = UNKNOWN
        return said[:LONGEST_ANSWER], self._info(False) | {INVALID_ACTION: said == INVALID}

    def _info(self, success: bool) -> Info:
        assert self._city is not None
        return {SUCCESS: success, INVALID_ACTION: False, PRIVILEGED: {"city": self._city.name}}


def choose_cities(names: Sequence[str] | None) -> tuple[City, ...]:
    """The cities of those names, checked against the table; all of them for None. Raises EnvArgumentError."""
    table = load_table()
    if names is None:
        return tuple(table.cities.values())
    if isinstance(names, str):
        raise EnvArgumentError(f"{GuessMyCity.spec.id}: cities is the string {names!r}: give a list of names")
    chosen = []
    for name in names:
        city = table.city_of_name.get(fold(str(name)))
        if city is None:
            raise EnvArgumentError(
                f"{GuessMyCity.spec.id}: no city {name!r} in the table: {nearest(str(name), table.cities)}"
            )
        chosen.append(city)
    if not chosen or len(set(chosen)) != len(chosen):
        raise EnvArgumentError(f"{GuessMyCity.spec.id}: cities must hold at least one city, and each once")
    return tuple(chosen)
