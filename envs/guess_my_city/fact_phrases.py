"""Phrases for what a city is like: climate, rank, religion, named things and general topics."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from envs.guess_my_city.conditions import Condition, Meanings, Truth, has, known, listed, people_condition
from envs.guess_my_city.table import City, Table
from envs.guess_my_city.text_folding import fold

MANY_MILLIONS, LARGE_MILLIONS = 3, 10


def weathers(table: Table) -> Meanings:
    """Yield the conditions of climates, with their phrases."""

    def kind(yes: set[str], no: set[str]) -> Callable[[City], Truth]:
        def holds(city: City) -> Truth:
            first, *others = city.weather.split("|")
            if first in yes:
                return None if set(others) & no else True
            return False if first in no and not set(others) & yes else None

        return holds

    kinds = {kind for city in table.cities.values() for kind in city.weather.split("|")}
    for name in sorted(kinds):
        word = {"highland": "highland", "oceanic": "oceanic", "desert": "desert"}.get(name, name)
        phrases = [f"{word} {noun}" for noun in ("climate", "weather")]
        yield Condition(f"weather:{name}", kind({name}, kinds - {name})), phrases
    yield Condition("weather:tropical", kind({"tropical"}, kinds - {"tropical"})), ["tropical", "in the tropics"]
    warm, cold = {"tropical", "desert", "Mediterranean"}, {"continental"}
    yield Condition("weather:warm", kind(warm, cold)), ["warm climate", "warm weather", "warm", "hot climate"]
    yield (
        Condition("weather:cold", kind(cold, {"tropical", "desert"})),
        ["cold climate", "cold winter", "cold weather", "harsh winter", "snow", "snowy winter", "cold"],
    )
    humid = {"tropical", "humid subtropical"}
    yield Condition("weather:humid", kind(humid, {"desert"})), ["humid climate", "humid", "subtropical climate"]
    dry = {"desert", "semi-arid"}
    yield Condition("weather:dry", kind(dry, {"oceanic"})), ["dry climate", "arid climate", "arid", "desert climate"]
    four = {"continental", "oceanic", "humid subtropical"}
    yield Condition("weather:four seasons", kind(four, {"tropical"})), ["four seasons", "four distinct seasons"]
    mild = {"oceanic", "Mediterranean", "highland"}
    yield (
        Condition("weather:mild", kind(mild, {"desert"})),
        ["mild climate", "temperate climate", "mild winter", "moderate climate", "temperate", "mild"],
    )


def ranks(table: Table) -> Meanings:
    """Yield the conditions of capital, size, population and religion, with their phrases."""
    yield (
        Condition("capital", lambda city: known(city.capital)),
        ["capital", "capital city", "national capital", "capital of its country", "capital of your country"],
    )
    yield (
        Condition("province capital", lambda city: city.province_capital),
        [
            "state capital",
            "provincial capital",
            "capital of a state",
            "capital of a province",
            "capital of its province",
        ],
    )
    of_province = Condition("largest of its province", lambda city: city.largest is True or None)
    yield (
        of_province,
        [
            f"{word} city in its {place}"
            for word in ("largest", "biggest", "most populous", "main")
            for place in ("state", "province", "region")
        ],
    )
    largest = Condition("largest", lambda city: known(city.largest))
    yield largest, [f"{word} city" for word in ("largest", "biggest", "most populous", "most populated", "main")]
    lesser = Condition("second largest", lambda city: False if city.largest is True else None)
    for rank in ("second", "third", "fourth", "fifth", "2nd", "3rd", "one of the"):
        condition = lesser if not rank.startswith("one") else Condition("large", lambda c: c.largest is True or None)
        yield condition, [f"{rank} {word} city" for word in ("largest", "biggest", "most populous", "most populated")]
    yield (
        Condition("megacity", people_condition(True, LARGE_MILLIONS).holds),
        ["megacity", "mega city"],
    )
    yield (
        Condition("many people", lambda city: city.people[0] >= MANY_MILLIONS or None),
        ["highly populated", "densely populated", "large population", "heavily populated", "populous"],
    )
    for name, words in {
        "Islam": ["muslim", "islam", "islamic"],
        "Christianity": ["christian", "christianity"],
        "Hinduism": ["hindu", "hinduism"],
        "Buddhism": ["buddhism"],
    }.items():
        condition = Condition(f"religion:{name}", partial(_follows, religion=name))
        yield condition, [*words, *(f"{word} population" for word in words)]
        closed = Condition(
            f"main religion:{name}",
            partial(_mainly_follows, religion=name),
        )
        ways = ("predominantly {}", "mostly {}", "{} majority", "majority {}", "{} country", "{} city", "mainly {}")
        yield closed, [way.format(word) for word in words for way in ways]


def _follows(city: City, religion: str) -> Truth:
    return city.religion == religion or None


def _mainly_follows(city: City, religion: str) -> Truth:
    return None if city.religion is None else city.religion == religion


def names(table: Table) -> Meanings:
    """Yield the conditions of named things. Landmarks belong to one city; for other things, other cities are
    unknown.
    """
    cities_with: dict[str, set[City]] = {}
    own: set[str] = set()
    near: set[str] = set()
    fields = ("landmarks", "lost", "near", "dish", "festival", "nickname", "history", "people_of", "sport")
    for city in table.cities.values():
        for name in fields:
            value = getattr(city, name)
            for entry in [value] if isinstance(value, str) else value or ():
                for phrase in map(fold, entry.split("|")):
                    phrase = phrase.removeprefix("the ")
                    if name == "near":
                        near.add(phrase)
                    cities_with.setdefault(phrase, set()).add(city)
                    if name == "landmarks" and phrase not in table.common:
                        own.add(phrase)
    for phrase, cities in cities_with.items():
        kind = "near" if phrase in near else "thing"
        yield Condition(f"{kind}:{phrase}", listed(cities, False if phrase in own else None)), [phrase]
    for city in table.cities.values():
        # The table has no facts about the relation of one city to another.
        yield Condition(f"city:{city.name}", lambda city: None), list(city.names)


def topics(table: Table) -> Meanings:
    """Yield the conditions of general topics, with their phrases."""
    for topic, phrases in table.topics.items():
        yield Condition(f"topic:{topic}", has(topic, "topics", None)), list(phrases)
