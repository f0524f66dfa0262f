"""The scripted player of Guess My City: asks the most informative question, or a random one.

With probability `skill` it asks the question with the highest entropy of answers over the cities that all answers so
far allow; among equal ones it prefers a guess, which may end the game. Otherwise it asks any of its questions at
random, repeats included. All answers narrow the possible cities, those to random questions too.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from math import log2
from typing import Any

from envs.base import Observation
from envs.guess_my_city.answers import answer
from envs.guess_my_city.game import choose_cities
from envs.guess_my_city.question_parser import read
from envs.guess_my_city.table import City, load_table

OPEN_QUESTIONS = (
    "What language do people speak in your city?",
    "What is the climate like in your city?",
    "How many people live in your city?",
    "What is the main religion in your city?",
    "What currency do people use?",
    "Which continent is your city on?",
    "Which country is your city in?",
    "Which part of the country is your city in?",
    "Which part of the world is your city in?",
    "What is the capital of your country?",
    "What is the traditional cuisine like in your city?",
    "What festivals do people celebrate in your city?",
    "What landmarks is your city famous for?",
    "What is the historical significance of your city?",
    "What is the main industry in your city?",
    "Can you tell me about any famous people from your city?",
    "What is the nickname of your city?",
    "What bodies of water are near your city?",
    "What river runs through your city?",
    "Did your city ever host the Olympics?",
)
PLAIN_QUESTIONS = (
    "Is your city a capital?",
    "Is your city the largest city of its country?",
    "Is your city on the coast?",
    "Is your city on an island?",
    "Is your city on a river?",
    "Is your city in the northern hemisphere?",
    "Is your city at high altitude?",
    "Does your city have a tropical climate?",
    "Does your city have a warm climate?",
    "Does your city have cold winters?",
    "Does your city have a dry climate?",
    "Is your city predominantly Muslim?",
    "Is your city predominantly Christian?",
    *(f"Does your city have more than {count} million people?" for count in (3, 5, 8, 10, 15, 20)),
    *(f"Is your city in the {part} of its country?" for part in ("north", "south", "east", "west", "central part")),
)
TOPICS = (
    *(
        "skyscrapers",
        "beaches",
        "a major port",
        "nightlife",
        "football",
        "museums",
        "street food",
        "film",
        "opera",
        "fashion",
    ),
    *(
        "technology",
        "finance",
        "universities",
        "mosques",
        "temples",
        "cathedrals",
        "palaces",
        "bridges",
        "canals",
        "mountains",
    ),
    *(
        "colonial architecture",
        "UNESCO World Heritage sites",
        "carnival",
        "coffee",
        "wine",
        "beer",
        "seafood",
        "street art",
    ),
    *(
        "cherry blossoms",
        "spicy food",
        "markets",
        "traffic",
        "earthquakes",
        "cricket",
        "a metro",
        "trams",
        "ancient ruins",
    ),
)


class GuessMyCityDemonstrator:
    """Plays `GuessMyCity(cities=cities)`. It does not look at the hidden city.

    Its questions are one guess per city, and the questions about facts whose answers differ among the cities.
    """

    def __init__(
        self,
        *,
        skill: float,
        cities: Sequence[str] | None = None,
        compat: bool = False,
        oracle: Mapping[str, Any] | None = None,
    ) -> None:
        del compat, oracle  # arguments of the environment; the table is the model of its answers
        self.skill = skill
        self.cities = choose_cities(cities)
        self.everything = (1 << len(self.cities)) - 1
        self.guesses = {f"Is it {city.name}?": 1 << i for i, city in enumerate(self.cities)}
        self.questions = dict(_answers(self.cities, [*self.guesses, *fact_questions()]))
        self._texts = tuple(self.questions)
        self._possible = self.everything
        self._random = random.Random()

    def begin(self, observation: Observation, info: Mapping[str, Any], *, seed: int) -> None:
        self._possible = self.everything
        # Independent of the random stream of the environment, which drew the city from the same seed.
        self._random = random.Random(f"asker {seed}")

    def act(self) -> str:
        if self._random.random() >= self.skill:
            return self._random.choice(self._texts)
        if self._possible.bit_count() <= 2:
            best = [question for question, mask in self.guesses.items() if mask & self._possible]
            return self._random.choice(best)
        best, most = [], -1.0
        for question, masks in self.questions.items():  # guesses come first
            bits = _entropy([(mask & self._possible).bit_count() for mask in masks.values()])
            if bits > most + 1e-9:
                best, most = [question], bits
            elif bits > most - 1e-9 and (question in self.guesses) == (best[0] in self.guesses):
                best.append(question)
        return self._random.choice(best)

    def see(self, action: str, observation: Observation, info: Mapping[str, Any]) -> None:
        self._possible &= self.questions[action].get(str(observation), self.everything)
        # An oracle other than the table may contradict the table.
        self._possible = self._possible or self.everything


@cache
def fact_questions() -> tuple[str, ...]:
    """Return every question about a fact that the player can ask, in a fixed order."""
    table = load_table()
    regions = dict.fromkeys(r for city in table.cities.values() for r in (*city.continents, *city.regions))
    languages = dict.fromkeys(language for city in table.cities.values() for language in city.languages)
    return (
        *OPEN_QUESTIONS,
        *PLAIN_QUESTIONS,
        *(f"Is your city in {_the(region)}?" for region in regions),
        *(f"Is your city in {country.name}?" for country in table.countries if country.name not in table.cities),
        *(f"Is {language} the main language in your city?" for language in languages),
        *(f"Is your city known for {topic}?" for topic in TOPICS),
    )


def _the(region: str) -> str:
    bare = ("Asia", "Africa", "America", "Europe", "Oceania", "Mesopotamia", "Scandinavia", "Polynesia", "Iberia")
    return region if any(word in region for word in bare) else f"the {region}"


def _answers(cities: Sequence[City], questions: Iterable[str]) -> Iterable[tuple[str, dict[str, int]]]:
    """Yield question and answer -> bit mask of the cities with that answer, for questions whose answers differ."""
    for question in questions:
        reading = read(question)
        assert reading is not None, question
        masks: dict[str, int] = {}
        for i, city in enumerate(cities):
            given = answer(city, reading)
            masks[given] = masks.get(given, 0) | 1 << i
        if len(masks) > 1 or len(cities) == 1:
            yield question, masks


def _entropy(counts: Sequence[int]) -> float:
    """Return the entropy of the answers in bits, given how many of the possible cities give each."""
    total = sum(counts)
    return log2(total) - sum(count * log2(count) for count in counts if count) / total
