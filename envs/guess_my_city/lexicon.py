"""The phrases that mean a condition. If a phrase has several meanings, one that holds is sufficient."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from envs.guess_my_city.conditions import Condition, Phrase, either, has
from envs.guess_my_city.fact_phrases import names, ranks, topics, weathers
from envs.guess_my_city.place_phrases import places, waters
from envs.guess_my_city.table import Country, load_table
from envs.guess_my_city.text_folding import stems


@cache
def lexicon() -> dict[Phrase, Condition]:
    """Return phrase (stems of its words) -> condition."""
    table = load_table()
    found: dict[Phrase, Condition] = {}

    def add(condition: Condition, phrases: Iterable[str]) -> None:
        for phrase in phrases:
            words = stems(phrase)
            if not words:
                continue
            other = found.get(words)
            found[words] = condition if other is None or other.id == condition.id else either(other, condition)

    for source in (places, waters, weathers, ranks, names, topics):
        for condition, phrases in source(table):
            add(condition, phrases)
    return found


@cache
def language_lexicon() -> dict[Phrase, Condition]:
    """Return the names of languages -> condition. They mean it only in a question about speaking."""
    found: dict[Phrase, Condition] = {}
    for language in dict.fromkeys(one for city in load_table().cities.values() for one in city.languages):
        for name in (language, language.split()[-1], language.split()[0]):
            found[stems(name)] = Condition(f"language:{language}", has(language, "languages", False))
    return found


@cache
def country_lexicon() -> dict[Phrase, Country]:
    """Return the names of countries -> country."""
    return {stems(name): country for country in load_table().countries for name in (country.name, *country.also)}
