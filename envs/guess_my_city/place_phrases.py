"""Phrases for where a city is: regions, countries, provinces, parts of a country, coasts, rivers and lakes."""

from __future__ import annotations

import re
from functools import partial

from envs.guess_my_city.conditions import Condition, Meanings, Truth, known, listed
from envs.guess_my_city.table import PARTS, City, Country, Table
from envs.guess_my_city.text_folding import fold

HIGH_M = 1400
"""Height above the sea of a city at high altitude, in metres."""


def places(table: Table) -> Meanings:
    """Yield the conditions of regions, countries, provinces, islands, parts, hemispheres and height, with their
    phrases.
    """
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
    for name, listing in listings(table, "province"):
        yield Condition(f"province:{name}", partial(_in_province, listing=listing)), [name]
    for name, listing in listings(table, "island"):
        yield Condition(f"island:{name}", listed(listing, False)), [name, f"{name} island"]
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


def _in_country(city: City, country: Country) -> Truth:
    return city.country is country


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
    """Return whether a city is in a part of its country. Opposite parts exclude each other; other parts are unknown."""
    parts = city.part.split("|")
    if part == parts[0] or (part in ("north", "south", "east", "west") and part in parts[0]):
        return True
    opposite = {"north": "south", "south": "north", "east": "west", "west": "east"}
    against = [other for here, other in opposite.items() if here in part]
    return False if len(parts) == 1 and any(other in parts[0] for other in against) else None


def waters(table: Table) -> Meanings:
    """Yield the conditions of coasts, seas, rivers, lakes and islands, with their phrases."""
    coast = Condition("coast", lambda city: True if city.sea else False if city.inland else None)
    yield coast, ["coast", "coastal", "coastline", "sea", "ocean", "by the sea", "seaside", "shore", "on the water"]
    near = Condition("near the coast", lambda city: True if city.sea else None)
    yield near, [f"{word} {noun}" for word in ("near", "close to", "near any") for noun in ("coast", "sea", "ocean")]
    yield Condition("inland", lambda city: False if city.sea else city.inland or None), ["landlocked", "inland"]
    for name, listing in listings(table, "sea"):
        condition = Condition(f"sea:{name}", partial(_on_sea, name=name, listing=listing))
        short = re.sub(r"\b(sea|ocean)\b", "", fold(name)).strip()
        yield (
            condition,
            [name, f"coast of the {name}", f"{short} coast", *([short] if short == "mediterranean" else [])],
        )
    river = Condition("river", lambda c: True if c.river or c.on_river else False if c.river == () else None)
    yield river, ["river", "on a river", "riverbank", "banks of a river", "major river", "along a river"]
    for name, listing in listings(table, "river"):
        condition = Condition(f"river:{name}", partial(_on_river, listing=listing))
        yield condition, [name, f"{re.sub(' [Rr]iver$', '', name)} river"]
    for name, listing in listings(table, "lake"):
        yield Condition(f"lake:{name}", listed(listing, None)), [name]
    yield (
        Condition("island", lambda c: c.island is not None if c.on_island is None else known(c.on_island)),
        ["island", "on an island", "island city", "island nation"],
    )


def _on_sea(city: City, name: str, listing: frozenset[City]) -> Truth:
    if city in listing:
        return True
    if "ocean" in fold(name) and not city.inland:
        # A sea may count as a part of an ocean.
        return False if any("Ocean" in sea for sea in city.sea) else None
    return False if city.sea or city.inland else None


def _on_river(city: City, listing: frozenset[City]) -> Truth:
    return True if city in listing else None if city.river is None else False


def listings(table: Table, name: str) -> list[tuple[str, frozenset[City]]]:
    """Return each name in a field, with each alternative of "a|b", and the cities that list it."""
    found: dict[str, set[City]] = {}
    for city in table.cities.values():
        value = getattr(city, name)
        for entry in [value] if isinstance(value, str) else value or ():
            for one in entry.split("|"):
                found.setdefault(one.removeprefix("the "), set()).add(city)
    return [(one, frozenset(cities)) for one, cities in found.items()]
