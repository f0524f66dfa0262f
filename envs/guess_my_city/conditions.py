"""Conditions of yes/no questions: each holds for a city, does not hold, or is unknown (None) because the table has no
entry.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from envs.guess_my_city.table import City

Truth = bool | None
Phrase = tuple[str, ...]
"""The stems of the words of a phrase."""


@dataclass(frozen=True)
class Condition:
    """A property that a city has or does not have.

    id: name; the part before the colon is its `kind`.
    """

    id: str
    holds: Callable[[City], Truth]

    @property
    def kind(self) -> str:
        return self.id.partition(":")[0]


Meanings = Iterable[tuple[Condition, Iterable[str]]]
"""Conditions with the phrases that mean them."""


def any_of(truths: Iterable[Truth]) -> Truth:
    """Return True if one is True, False if all are False, else None."""
    found = list(truths)
    return True if True in found else None if None in found else False


def all_of(truths: Iterable[Truth]) -> Truth:
    """Return False if one is False, True if all are True, else None."""
    found = list(truths)
    return False if False in found else None if None in found else True


def people_condition(more: bool, millions: float) -> Condition:
    """Return the condition of more (or fewer) than `millions` inhabitants; unknown inside the city's range."""

    def holds(city: City) -> Truth:
        low, high = city.people
        if low < millions < high:
            return None
        return (low >= millions) == more

    return Condition(f"people:{'more' if more else 'fewer'} than {millions:g}", holds)


def olympics_condition(season: str | None, year: int | None) -> Condition:
    """Return the condition of having held Olympic games: of a season, in a year, or any."""

    def holds(city: City) -> Truth:
        years = (city.olympics if season != "winter" else ()) + (city.winter_olympics if season != "summer" else ())
        # The games of 2020 took place in 2021.
        return bool(years) if year is None else year in years or (year == 2021 and 2020 in years)

    return Condition(f"olympics:{season or 'any'} {year or 'ever'}", holds)


def largest_within(where: str, holds: Callable[[City], Truth]) -> Condition:
    """Return the condition of being the largest city of a province or region, as far as its rank in the country implies
    it.
    """
    return Condition(f"largest in its {where}", holds)


def province_capital(province: Condition) -> Condition:
    """Return the condition of being the seat of government of that province."""
    return Condition(
        f"province capital:{province.id}",
        lambda city: all_of([province.holds(city), city.province_capital if province.holds(city) else None]),
    )


def either(one: Condition, other: Condition) -> Condition:
    """Return the condition that one of two conditions holds."""
    return Condition(f"{one.id}|{other.id}", lambda city: any_of([one.holds(city), other.holds(city)]))


def listed(cities: Collection[City], other: Truth) -> Callable[[City], Truth]:
    """Return a condition that is True for these cities and `other` for all others."""
    return lambda city: True if city in cities else other


def has(value: str, name: str, other: Truth) -> Callable[[City], Truth]:
    """Return a condition that is True for cities whose field `name` contains `value`, and `other` for all others."""
    return lambda city: True if value in getattr(city, name) else other


def known(value: object) -> Truth:
    """Return a field of three values as a truth: "unsure" and None are unknown."""
    return value if isinstance(value, bool) else None
