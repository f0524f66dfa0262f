"""What a yes/no question may ask: conditions that hold of a city, don't, or on which the table is silent (None)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from envs.guess_my_city.table import City

Truth = bool | None
Phrase = tuple[str, ...]


@dataclass(frozen=True)
class Condition:
    """Something a city is or is not. id: what it is called; kind: the part of it before the colon."""

    id: str
    holds: Callable[[City], Truth]

    @property
    def kind(self) -> str:
        return self.id.partition(":")[0]


def any_of(truths: Iterable[Truth]) -> Truth:
    """True where one is, False where all are, else None."""
    found = list(truths)
    return True if True in found else None if None in found else False


def all_of(truths: Iterable[Truth]) -> Truth:
    """False where one is, True where all are, else None."""
    found = list(truths)
    return False if False in found else None if None in found else True


def people_condition(more: bool, millions: float) -> Condition:
    """Whether a city has more (or fewer) inhabitants than so many millions; silent within its band."""

    def holds(city: City) -> Truth:
        low, high = city.people
        if low < millions < high:
            return None
        return (low >= millions) == more

    return Condition(f"people:{'more' if more else 'fewer'} than {millions:g}", holds)


def olympics_condition(season: str | None, year: int | None) -> Condition:
    """Whether a city held the Olympic games: of a season, in a year, or any."""

    def holds(city: City) -> Truth:
        years = (city.olympics if season != "winter" else ()) + (city.winter_olympics if season != "summer" else ())
        # The games of 2020 were held in 2021.
        return bool(years) if year is None else year in years or (year == 2021 and 2020 in years)

    return Condition(f"olympics:{season or 'any'} {year or 'ever'}", holds)


def largest_within(where: str, holds: Callable[[City], Truth]) -> Condition:
    """Whether a city is the largest of its province or part of the world, as far as its rank in its country tells."""
    return Condition(f"largest in its {where}", holds)


def province_capital(province: Condition) -> Condition:
    """Whether a city is the seat of government of that province."""
    return Condition(
        f"province capital:{province.id}",
        lambda city: all_of([province.holds(city), city.province_capital if province.holds(city) else None]),
    )


def either(one: Condition, other: Condition) -> Condition:
    """Whether one of the two holds."""
    return Condition(f"{one.id}|{other.id}", lambda city: any_of([one.holds(city), other.holds(city)]))
