"""The table of facts: cities, and countries whose facts their cities inherit.

The data are TOML files in `data/`; `cities_europe.toml` documents the entry of a city, `countries.toml` that of a
country, and `topics.toml` holds other things that a city is known for. Reading checks them: an unknown field, country
or topic, a name of two cities, or a fact that contains the city's name raises TableError, which names the entry.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, Literal

from envs.errors import EnvError
from envs.guess_my_city.text_folding import fold

CITY_FILES = ("cities_africa.toml", "cities_americas_oceania.toml", "cities_asia.toml", "cities_europe.toml")
INHERITED = ("continents", "regions", "maybe", "languages", "religion", "currency")
WEATHERS = (
    "tropical",
    "desert",
    "semi-arid",
    "Mediterranean",
    "humid subtropical",
    "oceanic",
    "continental",
    "highland",
)
PARTS = ("north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest", "centre")

ANSWER_FIELDS = (
    *(
        "regions",
        "languages",
        "religion",
        "currency",
        "province",
        "sea",
        "river",
        "lake",
        "island",
        "landmarks",
        "near",
    ),
    *("dish", "festival", "nickname", "history", "industry", "people_of", "sport"),
)
"""Fields whose values answers contain unchanged."""

Unsure = bool | Literal["unsure"] | None


class TableError(EnvError):
    """The table of facts contradicts itself, contains an unknown name, or reveals a city's name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Country:
    """Facts that hold for each city of a country that has no fact of its own."""

    name: str
    continents: tuple[str, ...]
    regions: tuple[str, ...]
    languages: tuple[str, ...]
    currency: str
    capital: str
    also: tuple[str, ...] = ()
    adjectives: tuple[str, ...] = ()
    maybe: tuple[str, ...] = ()
    religion: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class City:
    """One city, with the fields of the data files. Things with several names keep them joined by "|"."""

    name: str
    country: Country
    people: tuple[float, ...]
    latitude: float
    part: str
    weather: str
    continents: tuple[str, ...]
    regions: tuple[str, ...]
    maybe: tuple[str, ...]
    languages: tuple[str, ...]
    religion: str | None
    currency: str
    topics: frozenset[str]
    also: tuple[str, ...] = ()
    capital: Unsure = None
    largest: Unsure = None
    height: float | None = None
    province: tuple[str, ...] = ()
    province_capital: bool | None = None
    sea: tuple[str, ...] = ()
    river: tuple[str, ...] | None = None
    lake: tuple[str, ...] = ()
    inland: bool = False
    on_river: bool = False
    island: str | None = None
    on_island: Unsure = None
    landmarks: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    dish: tuple[str, ...] = ()
    festival: tuple[str, ...] = ()
    nickname: str | None = None
    history: tuple[str, ...] = ()
    industry: str | None = None
    people_of: tuple[str, ...] = ()
    sport: tuple[str, ...] = ()
    olympics: tuple[int, ...] = ()
    winter_olympics: tuple[int, ...] = ()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Folded names; the first is the usual one."""
        return tuple(dict.fromkeys(fold(name) for name in (self.name, *self.also)))

    def named_in(self, text: str) -> bool:
        """Return whether `text` contains the city's usual name, also inside a word, or another of its names as
        a word.
        """
        folded = fold(text)
        return self.names[0] in folded or any(f" {name} " in f" {folded} " for name in self.names[1:])


@dataclass(frozen=True)
class Table:
    """Cities by name, topics with their phrases, and the (folded) landmarks that several cities have."""

    cities: Mapping[str, City]
    topics: Mapping[str, tuple[str, ...]]
    common: frozenset[str] = field(default_factory=frozenset)

    @cached_property
    def city_of_name(self) -> dict[str, City]:
        """Folded name -> city."""
        found: dict[str, City] = {}
        for city in self.cities.values():
            for name in city.names:
                other = found.setdefault(name, city)
                if other is not city:
                    raise TableError(f"{name!r} names both {other.name!r} and {city.name!r}: remove it from one")
        return found

    @cached_property
    def countries(self) -> list[Country]:
        return list(dict.fromkeys(city.country for city in self.cities.values()))


@cache
def load_table() -> Table:
    """Return the table of this package, read and checked once per process."""
    countries = {
        key: _make(Country, f"countries.toml: {key}", entry) for key, entry in read_data("countries.toml").items()
    }
    topics = read_data("topics.toml")
    cities: dict[str, City] = {}
    for name in CITY_FILES:
        for key, entry in read_data(name).items():
            city = _read_city(f"{name}: {key}", entry, countries, topics["topics"])
            if city.name in cities:
                raise TableError(f"{name}: {key}: another city is called {city.name!r}")
            cities[city.name] = city
    table = Table(
        cities,
        {topic: (topic, *phrases) for topic, phrases in topics["topics"].items()},
        frozenset(fold(landmark) for landmark in topics["common"]["landmarks"]),
    )
    if not table.city_of_name:  # computed here, so that faults are reported when the table is loaded
        raise TableError("the table is empty")
    return table


@cache
def read_data(name: str) -> dict[str, Any]:
    """Return the content of a TOML file in `data/`."""
    return tomllib.loads(files(__package__).joinpath("data", name).read_text(encoding="utf-8"))


def _read_city(
    where: str, entry: Mapping[str, Any], countries: Mapping[str, Country], topics: Mapping[str, Any]
) -> City:
    country = countries.get(entry.get("country", ""))
    if country is None:
        raise TableError(f"{where}: country {entry.get('country')!r} is not in countries.toml")
    named = [topic.strip() for topic in entry.get("topics", "").split(",") if topic.strip()]
    if unknown := [topic for topic in named if topic not in topics]:
        raise TableError(f"{where}: {unknown} are not topics of topics.toml")
    inherited = {name: getattr(country, name) for name in INHERITED}
    own: dict[str, Any] = {"capital": fold(country.capital) == fold(entry.get("name", ""))}
    city = _make(City, where, inherited | own | dict(entry) | {"country": country, "topics": frozenset(named)})
    for kind in city.weather.split("|"):
        _check_word(where, "weather", kind, WEATHERS)
    for part in city.part.split("|"):
        _check_word(where, "part", part, PARTS)
    for name in ANSWER_FIELDS:
        value = getattr(city, name)
        for thing in (value,) if isinstance(value, str) else value or ():
            if city.named_in(thing.partition("|")[0]):
                raise TableError(f"{where}: {name} {thing!r} contains the city's name: reword it")
    if len(city.people) != 2 or city.people[0] > city.people[1]:
        raise TableError(f"{where}: people is {city.people}: give the least and the greatest count, in millions")
    return city


def _make(kind: type[Any], where: str, entry: Mapping[str, Any]) -> Any:
    """Return an entry as a `kind`, with lists as tuples. Raises TableError for an unknown or missing field."""
    known = {f.name for f in fields(kind)}
    if unknown := entry.keys() - known:
        raise TableError(f"{where}: unknown fields {sorted(unknown)}")
    try:
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()})
    except TypeError as error:
        raise TableError(f"{where}: {error}") from error


def _check_word(where: str, name: str, value: str, allowed: Iterable[str]) -> None:
    if value not in allowed:
        raise TableError(f"{where}: {name} is {value!r}, must be one of {', '.join(allowed)}")
