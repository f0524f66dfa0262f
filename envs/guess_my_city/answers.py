"""The answers of the table: yes, no, a fact in a template, or "I don't know." An answer never contains the
city's name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from envs.guess_my_city.conditions import all_of, any_of
from envs.guess_my_city.question_parser import Guess, OpenQuestion, Reading, YesNoQuestion
from envs.guess_my_city.table import City
from envs.guess_my_city.text_folding import fold

YES = "Yes."
NO = "No."
UNKNOWN = "I don't know."
SECRET = "You have to guess that."
SHOWN = 3
"""Greatest number of things that an answer lists."""

_WEATHER = {
    "tropical": "It is tropical and hot all year.",
    "desert": "It is hot and dry, as in a desert.",
    "semi-arid": "It is dry, with little rain.",
    "Mediterranean": "It is Mediterranean: dry summers, mild and wet winters.",
    "humid subtropical": "It is humid subtropical: hot and humid summers, mild winters.",
    "oceanic": "It is oceanic: mild, with rain all year.",
    "continental": "It is continental: warm summers, cold winters.",
    "highland": "It is mild all year, as in highlands near the tropics.",
}
_MEANS = {
    "metro": "metro",
    "trams": "tramway",
    "cable car": "cable car",
    "monorail": "monorail",
    "light rail": "light railway",
}
_PARTS = {"centre": "In the middle of its country"}


def answer(city: City, reading: Reading) -> str:
    """Return the answer of a person from `city` to a parsed question."""
    if isinstance(reading, Guess):
        return YES if reading.city is city else NO
    if isinstance(reading, YesNoQuestion):
        return {True: YES, False: NO, None: UNKNOWN}[truth(city, reading)]
    return _answer_open(city, reading) or UNKNOWN


def truth(city: City, question: YesNoQuestion) -> bool | None:
    """Return whether the conditions of a question hold; None if the table does not say, or part of the question is not
    parsed.
    """
    if not question.conditions or not question.whole:
        return None
    truths = [condition.holds(city) for condition in question.conditions]
    found = any_of(truths) if question.any else all_of(truths)
    # A city may be near a place that it is not in.
    return None if question.nearby and found is False else found


def _answer_open(city: City, question: OpenQuestion) -> str | None:
    return _ANSWERS[question.subject](city, question.words)


def _known(city: City, words: Sequence[str]) -> str | None:
    return _landmarks(city, ()) or _dish(city, ())


def _landmarks(city: City, words: Sequence[str]) -> str | None:
    things = (*city.landmarks, *city.near) if words else city.landmarks
    if words:
        things = tuple(thing for thing in things if set(words) & set(fold(thing).split()))
    return _list("It is known for {}.", things)


def _dish(city: City, words: Sequence[str]) -> str | None:
    return _list("People like {}.", city.dish)


def _place(city: City, words: Sequence[str]) -> str:
    part = city.part.split("|")[0]
    province = f", in {_first(city.province[0])}" if city.province else ""
    return f"{_PARTS.get(part, f'In the {part} of its country')}{province}."


def _water(city: City, words: Sequence[str]) -> str | None:
    waters = (*city.sea, *city.lake)
    if waters:
        return _list("It lies on {}.", [_article(water) for water in waters])
    return _river(city, ()) or ("It has no coast." if city.inland else None)


def _river(city: City, words: Sequence[str]) -> str | None:
    if not city.river:
        return "No large river runs through it." if city.river == () else None
    names = [_first(river).removesuffix(" River") for river in city.river]
    return _list("The {} runs through it.", [f"{name} River" for name in names])


def _capital(city: City, words: Sequence[str]) -> str | None:
    if city.capital is True:
        return "It is the capital itself."
    return f"The capital is {city.country.capital}." if city.capital is False else None


def _country(city: City, words: Sequence[str]) -> str:
    if city.named_in(city.country.name):
        return "It is a country of its own."
    return f"In {city.country.name}."


def _people(city: City, words: Sequence[str]) -> str:
    low, high = city.people
    return f"Between {low:g} and {high:g} million people."


def _olympics(city: City, words: Sequence[str]) -> str:
    games = [
        (season, years) for season, years in (("Summer", city.olympics), ("Winter", city.winter_olympics)) if years
    ]
    if not games:
        return "It never held the Olympics."
    return " ".join(
        f"It held the {season} Olympics of {_and([str(year) for year in years])}." for season, years in games
    )


def _height(city: City, words: Sequence[str]) -> str | None:
    return None if city.height is None else f"About {city.height:g} metres above the sea."


def _transport(city: City, words: Sequence[str]) -> str | None:
    means = [f"a {means}" for topic, means in _MEANS.items() if topic in city.topics]
    return _list("It has {}.", means)


def _things(template: str, name: str) -> Callable[[City, Sequence[str]], str | None]:
    def list_things(city: City, words: Sequence[str]) -> str | None:
        value = getattr(city, name)
        return _list(template, (value,) if isinstance(value, str) else value or ())

    return list_things


_ANSWERS: dict[str, Callable[[City, Sequence[str]], str | None]] = {
    "name": lambda city, words: SECRET,
    "languages": _things("People mostly speak {}.", "languages"),
    "religion": _things("The largest religion is {}.", "religion"),
    "currency": _things("People pay in {}.", "currency"),
    "nickname": _things("It is called {}.", "nickname"),
    "olympics": _olympics,
    "capital": _capital,
    "continent": _things("In {}.", "continents"),
    "people_of": _things("One name is {}.", "people_of"),
    "people": _people,
    "weather": lambda city, words: _WEATHER[city.weather.split("|")[0]],
    "height": _height,
    "river": _river,
    "transport": _transport,
    "dish": _dish,
    "festival": _things("People celebrate {}.", "festival"),
    "sport": _things("In sport it is known for {}.", "sport"),
    "industry": _things("It lives by {}.", "industry"),
    "landmarks": _landmarks,
    "history": _things("Its past has to do with {}.", "history"),
    "near": _things("Near it are {}.", "near"),
    "water": _water,
    "country": _country,
    "region": lambda city, words: f"In {_article(city.regions[0])}.",
    "place": _place,
    "known": _known,
}


def _list(template: str, things: Sequence[str]) -> str | None:
    return template.format(_and([_first(thing) for thing in things[:SHOWN]])) if things else None


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _first(thing: str) -> str:
    return thing.split("|")[0]


def _article(name: str) -> str:
    bare = ("Asia", "Africa", "America", "Europe", "Oceania", "Lake", "Iberia", "Port")
    return (
        _first(name) if any(word in name for word in bare) or name.startswith(("a ", "the ")) else f"the {_first(name)}"
    )
