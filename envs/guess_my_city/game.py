"""The environment `GuessMyCity`, after LMRL-Gym's Guess My City (Abdulhai et al. 2023).

As in the original: -1 a question, 0 for the right guess, which ends the episode, and 20 turns. Different: answers come
from a table of facts, are "I don't know." if the table has no entry, and never contain the city's name; and a guess is
a question that only names a city (see `compat`).
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
from envs.toolkit.argument_checks import check_distinct

OPENING = "Questions:"
INVALID = "Invalid question."

INSTRUCTIONS = (
    "You are from {secret}. Another player asks about your city to find out which it is. Answer truthfully in one "
    "short sentence, beginning with Yes or No where the question can be answered so. Never name the city, not even "
    "within another name."
)
LONGEST_ANSWER = 400
"""Greatest length of an oracle's answer, in characters."""

MAX_TURNS = 20
COMPAT_LENGTH = 10_000
"""Number of characters of a question in which the paper's rule looks for the city."""


def _look_up(enquiry: Enquiry) -> str:
    reading = read(enquiry.question)
    return INVALID if reading is None else answer(load_table().cities[enquiry.secret], reading)


class GuessMyCity:
    """A person is from one of about 90 large cities; find out which.

    cities: names of the cities that may be hidden; None for all. Any city may be guessed in both cases.
    compat: use the paper's rules: a question that contains the city's name anywhere guesses it, and the twentieth
        question terminates the episode instead of truncating it.
    oracle: answers questions that are not guesses; a mapping with a `kind` (`envs.oracles.settings`), or None for the
        table. An answer that contains the city's name is replaced by "I don't know."

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
        """Hide a city. Raises EnvArgumentError for an unknown option or a city that is not in play."""
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
        # A number, because a task id may be shown to the policy.
        return OPENING, self._info(False) | {TASK_ID: f"city-{index:03d}"}

    def step(self, action: str) -> Step:
        """Answer one question. A question that cannot be parsed costs the turn."""
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
        text = " ".join(self._oracle.answer(Enquiry(self.spec.id, city.name, action, instructions)).split())
        if not text or city.named_in(text):
            text = UNKNOWN
        return text[:LONGEST_ANSWER], self._info(False) | {INVALID_ACTION: text == INVALID}

    def _info(self, success: bool) -> Info:
        assert self._city is not None
        return {SUCCESS: success, INVALID_ACTION: False, PRIVILEGED: {"city": self._city.name}}


def choose_cities(names: Sequence[str] | None) -> tuple[City, ...]:
    """Return the cities of these names; all cities for None. Raises EnvArgumentError for an unknown or repeated
    city.
    """
    table = load_table()
    if names is None:
        return tuple(table.cities.values())
    check_distinct(GuessMyCity.spec.id, "cities", names)
    chosen = []
    for name in names:
        city = table.city_of_name.get(fold(str(name)))
        if city is None:
            raise EnvArgumentError(
                f"{GuessMyCity.spec.id}: no city {name!r} in the table: {nearest(str(name), table.cities)}"
            )
        chosen.append(city)
    if len(set(chosen)) != len(chosen):
        raise EnvArgumentError(f"{GuessMyCity.spec.id}: cities names a city twice")
    return tuple(chosen)
