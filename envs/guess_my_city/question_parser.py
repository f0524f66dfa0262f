"""Parses a question: a guess, a yes/no question with conditions, or an open question with a subject.

A yes/no question is `whole` only if each word belongs to a condition or does not change the meaning ("famous",
"located"). With other words left, the table cannot answer it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache

from envs.guess_my_city.conditions import (
    Condition,
    Phrase,
    largest_within,
    olympics_condition,
    people_condition,
    province_capital,
)
from envs.guess_my_city.lexicon import country_lexicon, language_lexicon, lexicon
from envs.guess_my_city.sentences import ask_kind, canonical, guess_parts, last_sentence
from envs.guess_my_city.table import City, load_table, read_data
from envs.guess_my_city.text_folding import fold, plain, stem, stems

MAX_LENGTH = 1000
"""Longer questions are refused, in characters."""
CACHED_QUESTIONS = 65_536


@dataclass(frozen=True)
class Guess:
    """A guess; `city` is None for a city that is not in the table."""

    city: City | None


@dataclass(frozen=True)
class YesNoQuestion:
    """A yes/no question: whether all of the conditions hold, or any of them if `any` is set.

    whole: whether every word was parsed.
    nearby: whether it asks for places near the city.
    """

    conditions: tuple[Condition, ...]
    any: bool = False
    whole: bool = True
    nearby: bool = False


@dataclass(frozen=True)
class OpenQuestion:
    """An open question about a subject; `words` restrict the answer to things that contain one of them."""

    subject: str
    words: tuple[str, ...] = ()


Reading = Guess | YesNoQuestion | OpenQuestion

# Subjects that answer a yes/no question that names no particular thing: "Is it known for its cuisine?"
_INSTEAD = frozenset(
    {"languages", "religion", "nickname", "people_of", "people", "weather", "river", "dish", "festival", "sport"}
    | {"industry", "landmarks", "history", "transport", "currency", "height"}
)
_ABOUT_IT = re.compile(r"\b(?:it|its|there|here|you|your|country|region|city|town|place|people|locals?|residents?)\b")
_COUNT = re.compile(
    r"\b(?P<way>more|over|greater|larger|bigger|higher|above|exceed(?:s|ing)?|at least|less|under|fewer|smaller|lower"
    r"|below)"
    r"(?: than)?(?: about| approximately| around)? (?P<number>\d+(?: \d+)*)(?P<unit> million| m| billion| thousand| k)?"
    r"(?= |$)(?: people| inhabitants| residents| in population)?"
)
_OLYMPICS = re.compile(
    r"\b(?:(?:ever )?host(?:ed|ing|s|)?|held|hold|home to|site of|had)?(?: of)?(?: the| any)*(?: \d{4})?"
    r"(?: (?:summer|winter))? ?olympics?(?: games)?(?: in \d{4})?"
)
_SPEAKING = re.compile(r"\b(?:speak\w*|spoken|languages?|native tongue)\b")
_ANY = re.compile(r"\b(?:any|(?:specific|particular) (?:landmarks?|dish(?:es)?|festivals?))\b")
_WITHIN = re.compile(
    r"^(?:is|are) (?:it|you) (?:located |situated |found |based )?(?:in|on|within|at)\b|^is it [a-z ]{,30}$"
)
_ADJECTIVES = ("an", "ish", "ese", "ic", "al", "ant", "ox", "ern", "ed")
_PEOPLE = re.compile(r"\b(?:population|people|inhabitants|residents|million|populous|populated|size)\b")
_MORE = frozenset(
    {"more", "over", "greater", "larger", "bigger", "higher", "above", "exceed", "exceeds", "exceeding", "at least"}
)


def read(question: str) -> Reading | None:
    """Parse a question; return None if it cannot be parsed or is too long."""
    return None if len(question) > MAX_LENGTH else _read(question)


@lru_cache(maxsize=CACHED_QUESTIONS)
def _read(question: str) -> Reading | None:
    sentence = last_sentence(question)
    text = canonical(sentence)
    if not text:
        return None
    if guess := _read_guess(text, plain(sentence).split()):
        return guess
    kind = ask_kind(text)
    if kind == "name":
        return OpenQuestion("name")
    if kind == "yes/no":
        return _read_conditions(text)
    return _read_subject(text) if kind == "open" else None


def _read_guess(text: str, spelt: list[str]) -> Guess | None:
    """Parse a guess: only the name of a city, alone or after "is it", "are you from" and the like."""
    parts = guess_parts(text)
    rest, within = parts or (text, False)
    city = _city_named(rest)
    if city is not None:
        return Guess(city)
    if parts is None or within or _lexical(rest):
        return None
    words = spelt[-len(rest.split()) :]
    named = len(words) <= 3 and all(word[:1].isupper() for word in words) and fold(" ".join(words)) == rest
    # An unknown name is a wrong guess. "Catholic" or "Nordic" is not a name.
    return Guess(None) if named and not (len(words) == 1 and rest.endswith(_ADJECTIVES)) else None


def _city_named(text: str) -> City | None:
    """Return the city that `text` names, with or without its country or province after it."""
    names = load_table().city_of_name
    words = text.split()
    for end in range(min(len(words), 6), 0, -1):
        city = names.get(" ".join(words[:end]))
        if city is None:
            continue
        tail = tuple(word for word in stems(" ".join(words[end:])) if word not in ("in", "city"))
        provinces = [stems(one) for name in city.province for one in name.split("|")]
        if not tail or country_lexicon().get(tail) is city.country or tail in provinces:
            return city
    return None


def _lexical(text: str) -> bool:
    known = lexicon()
    return stems(text) in known or stems(f"{text} city") in known


def _read_conditions(text: str) -> Reading | None:
    conditions, nearby, whole = [], False, True
    if _PEOPLE.search(text):
        for match in _COUNT.finditer(text):
            conditions.append(people_condition(match["way"] in _MORE, _millions(match["number"], match["unit"])))
        text = _COUNT.sub(" ", text) if conditions else text
    if "olympic" in text:
        conditions.append(_olympics(text))
        text = _OLYMPICS.sub(" ", text)
    found, left = _match(stems(text), speaking=bool(_SPEAKING.search(text)))
    conditions += found
    for word in left:
        if word in _words("near"):
            nearby = True
        elif word not in _words("fillers"):
            whole = False
    if not conditions or _ANY.search(text):
        open_question = _read_subject(text)
        if open_question is not None and open_question.subject in _INSTEAD:
            return open_question
    if not _ABOUT_IT.search(text):
        return None
    # A place near the city does not answer a question about the city's own place.
    whole = whole and (nearby or not _WITHIN.search(text) or all(c.kind != "near" for c in conditions))
    return YesNoQuestion(_of_where(conditions), " or " in f" {text} ", whole, nearby)


def _millions(number: str, unit: str | None) -> float:
    """Return a number in millions: "10" or "10 5" million, "1 000 000", "500" thousand."""
    digits = number.strip().split()
    scale = {"million": 1.0, "m": 1.0, "billion": 1e3, "thousand": 1e-3, "k": 1e-3}.get((unit or "").strip())
    if scale is not None and len(digits) == 2 and len(digits[1]) < 3:
        return float(f"{digits[0]}.{digits[1]}") * scale
    # At most 12 digits, because a question may be one long number.
    return min(int("".join(digits)[:12]), 10**12) * (scale if scale is not None else 1e-6)


def _olympics(text: str) -> Condition:
    season = re.search(r"\b(summer|winter)\b", text)
    year = re.search(r"\b(?:18|19|20)\d\d\b", text)
    return olympics_condition(season[1] if season else None, int(year[0]) if year else None)


def _match(words: Phrase, *, speaking: bool) -> tuple[list[Condition], list[str]]:
    """Return the conditions of the longest phrases, from the left, and the words that belong to none."""
    known = lexicon()
    spoken = language_lexicon() if speaking else {}
    longest = _longest_phrase()
    conditions: list[Condition] = []
    left: list[str] = []
    start = 0
    while start < len(words):
        for end in range(min(len(words), start + longest), start, -1):
            phrase = words[start:end]
            condition = spoken.get(phrase) or known.get(phrase)
            if condition is not None:
                conditions.append(condition)
                start = end
                break
        else:
            left.append(words[start])
            start += 1
    return list(dict.fromkeys(conditions)), left


@cache
def _longest_phrase() -> int:
    return max(len(phrase) for phrase in lexicon())


def _of_where(conditions: list[Condition]) -> tuple[Condition, ...]:
    """Return the conditions with capital and largest city related to the province or region in the question, not to the
    country.
    """
    provinces = [condition for condition in conditions if condition.kind == "province"]
    wider = [condition for condition in conditions if condition.kind == "region"]
    found = []
    for condition in conditions:
        if condition.id == "capital" and provinces:
            found += [province_capital(province) for province in provinces]
        elif condition.id == "largest" and provinces:
            found.append(largest_within("province", lambda city: city.largest is True or None))
        elif condition.id == "largest" and wider:
            found.append(largest_within("region", lambda city: False if city.largest is False else None))
        else:
            found.append(condition)
    return tuple(found)


@cache
def _words(name: str) -> frozenset[str]:
    return frozenset(stem(word) for word in read_data("questions.toml")[name].split())


@cache
def _kinds() -> tuple[str, ...]:
    return tuple(read_data("questions.toml")["kinds"].split())


@cache
def _subjects() -> tuple[tuple[str, re.Pattern[str]], ...]:
    kinds = "|".join(f"{kind}s?" for kind in _kinds())
    subjects = read_data("questions.toml")["subjects"].items()
    return tuple((name, re.compile(rf"\b(?:{'|'.join(ways)})\b".replace("KIND", kinds))) for name, ways in subjects)


def _read_subject(text: str) -> OpenQuestion | None:
    for subject, pattern in _subjects():
        if pattern.search(text):
            words = set(text.split())
            kinds = tuple(kind for kind in _kinds() if kind in words or f"{kind}s" in words)
            return OpenQuestion(subject, kinds if subject == "landmarks" else ())
    return None
