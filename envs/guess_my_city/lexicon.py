"""The phrases that mean a condition; where a phrase has several meanings, one that holds is enough."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from functools import cache, partial

from envs.guess_my_city.conditions import Condition, Phrase, Truth, either, people_condition
from envs.guess_my_city.table import PARTS, City, Country, Table, load_table
from envs.guess_my_city.text_folding import fold, stems

HIGH_M = 1400
MANY_MILLIONS, LARGE_MILLIONS = 3, 10

Meanings = Iterable[tuple[Condition, Iterable[str]]]


@cache
def lexicon() -> dict[Phrase, Condition]:
    """Phrase (stems of its words) -> condition."""
    table = load_table()
    found: dict[Phrase, Condition] = {}

    def add(condition: Condition, phrases: Iterable[str]) -> None:
        for phrase in phrases:
            words = stems(phrase)
            if not words:
                continue
            other = found.get(words)
            found[words] = condition if other is None or other.id == condition.id else either(other, condition)

    for source in (_places, _waters, _weathers, _ranks, _names, _topics):
        for condition, phrases in source(table):
            add(condition, phrases)
    return found


@cache
def language_lexicon() -> dict[Phrase, Condition]:
    """Names of languages, which mean a condition only where a question is about speaking."""
    found: dict[Phrase, Condition] = {}
    for language in dict.fromkeys(one for city in load_table().cities.values() for one in city.languages):
        for name in (language, language.split()[-1], language.split()[0]):
            found[stems(name)] = Condition(f"language:{language}", _has(language, "languages", False))
    return found


def _sure(value: object) -> Truth:
    return value if isinstance(value, bool) else None


def _places(table: Table) -> Meanings:
    regions = {r for city in table.cities.values() for r in (*city.continents, *city.regions, *city.maybe)}
    for region in sorted(regions):
        yield (
            Condition(f"region:{region}", partial(_in_region, region=region)),
            _region_phrases(region),
        )
    yield (
        Condition("region:the Americas", lambda city: bool({"North America", "South America"} & {*city.continents})),
        ["americas", "american continent", "the new world"],
    )
    for country in table.countries:
        phrases = [country.name, *country.also]
        for adjective in country.adjectives:
            phrases += [f"{adjective} {noun}" for noun in ("city", "country", "nation", "town", "metropolis", "cities")]
        yield Condition(f"country:{country.name}", partial(_in_country, country=country)), phrases
    for name, listing in _listings(table, "province"):
        yield Condition(f"province:{name}", partial(_in_province, listing=listing)), [name]
    for name, listing in _listings(table, "island"):
        yield Condition(f"island:{name}", _listed(listing, False)), [name, f"{name} island"]
    for part in PARTS:
        yield Condition(f"part:{part}", partial(_in_part, part=part)), _part_phrases(part)
    yield Condition("half:north", lambda city: city.latitude > 0), ["northern hemisphere", "north of the equator"]
    yield Condition("half:south", lambda city: city.latitude < 0), ["southern hemisphere", "south of the equator"]
    yield (
        Condition("equator", lambda c: True if abs(c.latitude) <= 7 else False if abs(c.latitude) > 23 else None),
        ["equator", "near the equator", "close to the equator", "equatorial region"],
    )
    yield (
        Condition("high", lambda city: True if (city.height or 0) >= HIGH_M else False if city.sea else None),
        ["high altitude", "high elevation", "at altitude", "high above sea level", "plateau", "in the highlands"],
    )


def _in_region(city: City, region: str) -> Truth:
    if region in city.continents or region in city.regions:
        return True
    return None if region in city.maybe else False


def _region_phrases(region: str) -> list[str]:
    adjectives = {
        "Europe": "european",
        "Asia": "asian",
        "Africa": "african",
        "South America": "south american",
        "North America": "north american",
        "Latin America": "latin american",
        "Arab world": "arab",
    }
    phrases = [region]
    if adjective := adjectives.get(region):
        phrases += [f"{adjective} {noun}" for noun in ("city", "country", "nation", "continent", "side", "cities")]
    more = {
        "European Union": ["eu", "eurozone member"],
        "Southeast Asia": ["south east asia", "southeastern asia"],
        "Middle East": ["middle eastern country", "near east"],
        "Sub-Saharan Africa": ["subsaharan africa"],
        "East Asia": ["eastern asia"],
        "South Asia": ["southern asia"],
        "North Africa": ["northern africa"],
        "West Africa": ["western africa"],
        "East Africa": ["eastern africa"],
        "Oceania": ["pacific region"],
    }
    return phrases + more.get(region, [])


def _in_province(city: City, listing: frozenset[City]) -> Truth:
    if city in listing:
        return True
    elsewhere = all(city.country is not other.country for other in listing)
    return False if elsewhere or city.province else None


def _part_phrases(part: str) -> list[str]:
    if part == "centre":
        words = ["central", "centre", "middle", "center"]
        return [f"{word} {noun}" for word in words for noun in ("part", "region", "area")] + ["central"]
    spelt = re.sub("(north|south)(east|west)", r"\1 \2", part)
    words = sorted({part, part + "ern", spelt, spelt + "ern"})
    nouns = ("part", "region", "side", "area", "half", "portion")
    return [f"{word} {noun}" for word in words for noun in nouns] + words


def _in_part(city: City, part: str) -> Truth:
    """Opposite parts exclude each other; of the others nothing follows."""
    parts = city.part.split("|")
    if part == parts[0] or (part in ("north", "south", "east", "west") and part in parts[0]):
        return True
    opposite = {"north": "south", "south": "north", "east": "west", "west": "east"}
    against = [other for here, other in opposite.items() if here in part]
    return False if len(parts) == 1 and any(other in parts[0] for other in against) else None


def _waters(table: Table) -> Meanings:
    coast = Condition("coast", lambda city: True if city.sea else False if city.inland else None)
    yield coast, ["coast", "coastal", "coastline", "sea", "ocean", "by the sea", "seaside", "shore", "on the water"]
    near = Condition("near the coast", lambda city: True if city.sea else None)
    yield near, [f"{word} {noun}" for word in ("near", "close to", "near any") for noun in ("coast", "sea", "ocean")]
    yield Condition("inland", lambda city: False if city.sea else city.inland or None), ["landlocked", "inland"]
    for name, listing in _listings(table, "sea"):
        condition = Condition(f"sea:{name}", partial(_on_sea, name=name, listing=listing))
        short = re.sub(r"\b(sea|ocean)\b", "", fold(name)).strip()
        yield (
            condition,
            [name, f"coast of the {name}", f"{short} coast", *([short] if short == "mediterranean" else [])],
        )
    river = Condition("river", lambda c: True if c.river or c.on_river else False if c.river == () else None)
    yield river, ["river", "on a river", "riverbank", "banks of a river", "major river", "along a river"]
    for name, listing in _listings(table, "river"):
        condition = Condition(f"river:{name}", partial(_on_river, listing=listing))
        yield condition, [name, f"{re.sub(' [Rr]iver$', '', name)} river"]
    for name, listing in _listings(table, "lake"):
        yield Condition(f"lake:{name}", _listed(listing, None)), [name]
    yield (
        Condition("island", lambda c: c.island is not None if c.on_island is None else _sure(c.on_island)),
        ["island", "on an island", "island city", "island nation"],
    )


def _on_sea(city: City, name: str, listing: frozenset[City]) -> Truth:
    if city in listing:
        return True
    if "ocean" in fold(name) and not city.inland:
        # A sea may count as part of an ocean.
        return False if any("Ocean" in sea for sea in city.sea) else None
    return False if city.sea or city.inland else None


def _on_river(city: City, listing: frozenset[City]) -> Truth:
    return True if city in listing else None if city.river is None else False


def _follows(city: City, religion: str) -> Truth:
    return city.religion == religion or None


def _mainly_follows(city: City, religion: str) -> Truth:
    return None if city.religion is None else city.religion == religion


def _in_country(city: City, country: Country) -> Truth:
    return city.country is country


def _weathers(table: Table) -> Meanings:
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


def _ranks(table: Table) -> Meanings:
    yield (
        Condition("capital", lambda city: _sure(city.capital)),
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
    largest = Condition("largest", lambda city: _sure(city.largest))
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


def _names(table: Table) -> Meanings:
    """What goes by a name: landmarks, which no other city has, and the rest, on which other cities are silent."""
    listed: dict[str, set[City]] = {}
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
                    listed.setdefault(phrase, set()).add(city)
                    if name == "landmarks" and phrase not in table.common:
                        own.add(phrase)
    for phrase, cities in listed.items():
        kind = "near" if phrase in near else "thing"
        yield Condition(f"{kind}:{phrase}", _listed(cities, False if phrase in own else None)), [phrase]
    for city in table.cities.values():
        # Of what a city is to another city the table says nothing.
        yield Condition(f"city:{city.name}", lambda city: None), list(city.names)


def _topics(table: Table) -> Meanings:
    for topic, phrases in table.topics.items():
        yield Condition(f"topic:{topic}", _has(topic, "topics", None)), list(phrases)


def _listings(table: Table, name: str) -> list[tuple[str, frozenset[City]]]:
    """Each name that cities list in that field, all names of an "a|b" alike, with the cities that list it."""
    found: dict[str, set[City]] = {}
    for city in table.cities.values():
        value = getattr(city, name)
        for entry in [value] if isinstance(value, str) else value or ():
            for one in entry.split("|"):
                found.setdefault(one.removeprefix("the "), set()).add(city)
    return [(one, frozenset(cities)) for one, cities in found.items()]


@cache
def country_lexicon() -> dict[Phrase, Country]:
    """Names of countries."""
    return {stems(name): country for country in load_table().countries for name in (country.name, *country.also)}


def _listed(cities: Collection[City], other: Truth) -> Callable[[City], Truth]:
    """True of these cities, `other` of the rest."""
    return lambda city: True if city in cities else other


def _has(value: str, name: str, other: Truth) -> Callable[[City], Truth]:
    """True of cities whose field `name` holds `value`, `other` of the rest."""
    return lambda city: True if value in getattr(city, name) else other
