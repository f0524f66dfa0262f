"""The knowledge table: objects by category, and the objects that have each attribute.

The data are TOML files in `data/`; `objects.toml` and `attributes_kinds.toml` document their formats. Reading checks
them: an unknown object, a question with two meanings, or an attribute of no object raises TableError, which names the
file and the entry.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

from envs.errors import EnvError
from envs.twenty_questions.question_keys import guess_keys, key, normalise

ATTRIBUTE_FILES = (
    "attributes_kinds.toml",
    "attributes_looks.toml",
    "attributes_parts.toml",
    "attributes_uses.toml",
    "attributes_places.toml",
)
_ATTRIBUTE_FIELDS = {"ask", "also", "yes", "no"}


class TableError(EnvError):
    """The knowledge table contradicts itself or contains an unknown name."""


@dataclass(frozen=True)
class Thing:
    """One object: word, category, names (the word first) and the question that guesses it."""

    word: str
    category: str
    names: tuple[str, ...]
    guess: str


@dataclass(frozen=True)
class Attribute:
    """One yes/no attribute: short question, other ways to ask it, and the words for which it is true."""

    id: str
    question: str
    also: tuple[str, ...]
    true_of: frozenset[str]


@dataclass(frozen=True)
class Table:
    """Objects, attributes, and the keys of their questions."""

    things: Mapping[str, Thing]
    attributes: Mapping[str, Attribute]

    @cached_property
    def attribute_of_key(self) -> dict[str, Attribute]:
        """Question key -> attribute."""
        found: dict[str, Attribute] = {}
        for attribute in self.attributes.values():
            for question in (attribute.question, *attribute.also):
                other = found.setdefault(key(question), attribute)
                if other is not attribute:
                    raise TableError(f"{question!r} asks both {other.id!r} and {attribute.id!r}: remove it from one")
        return found

    @cached_property
    def thing_of_key(self) -> dict[str, Thing]:
        """Question key -> the object that it guesses."""
        found: dict[str, Thing] = {}
        for thing in self.things.values():
            for name in thing.names:
                for guess in guess_keys(name):
                    other = found.setdefault(guess, thing)
                    if other is not thing:
                        raise TableError(f"{name!r} names both {other.word!r} and {thing.word!r}: remove it from one")
        clash = found.keys() & self.attribute_of_key.keys()
        if clash:
            raise TableError(f"both a guess and an attribute's question: {sorted(clash)}: reword the attribute")
        return found


@cache
def load_table() -> Table:
    """Return the table of this package, read and checked once per process."""
    things = _read_things(_read("objects.toml"))
    attributes: dict[str, Attribute] = {}
    for name in ATTRIBUTE_FILES:
        for attribute_id, entry in _read(name).items():
            if attribute_id in attributes:
                raise TableError(f"{name}: attribute {attribute_id!r} is defined twice")
            attributes[attribute_id] = _read_attribute(
                f"{name}: {attribute_id}", attribute_id, entry, things, attributes
            )
    table = Table(things, attributes)
    if not (
        table.attribute_of_key and table.thing_of_key
    ):  # computed here, so that faults are reported when the table is loaded
        raise TableError("the table is empty")
    return table


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("data", name).read_text(encoding="utf-8"))


def _read_things(categories: Mapping[str, Mapping[str, list[str]]]) -> dict[str, Thing]:
    things: dict[str, Thing] = {}
    for category, entries in categories.items():
        for phrase, others in entries.items():
            word = phrase.removeprefix("a ").removeprefix("an ")
            if word in things:
                raise TableError(f"objects.toml: {word!r} is defined twice")
            names = tuple(dict.fromkeys(normalise(name) for name in (word, *others)))
            things[word] = Thing(word, category, names, f"Is it {phrase}?")
    return things


def _read_attribute(
    where: str,
    attribute_id: str,
    entry: Mapping[str, Any],
    things: Mapping[str, Thing],
    earlier: Mapping[str, Attribute],
) -> Attribute:
    unknown = entry.keys() - _ATTRIBUTE_FIELDS
    if unknown or not {"ask", "yes"} <= entry.keys():
        raise TableError(f"{where}: needs ask and yes, may have also and no; unknown: {sorted(unknown)}")
    true_of = _words(where, entry["yes"], things, earlier)
    false_of = _words(where, entry.get("no", ""), things, earlier)
    if not false_of <= true_of:
        raise TableError(
            f"{where}: `no` lists exceptions to `yes`; these are not in `yes`: {sorted(false_of - true_of)}"
        )
    true_of -= false_of
    if not true_of or len(true_of) == len(things):
        raise TableError(
            f"{where}: true of {'nothing' if not true_of else 'everything'}, which makes it useless as a question"
        )
    return Attribute(attribute_id, entry["ask"], tuple(entry.get("also", ())), frozenset(true_of))


def _words(where: str, text: str, things: Mapping[str, Thing], earlier: Mapping[str, Attribute]) -> set[str]:
    """Return the words in a comma-separated list of words, `everything`, `kind:CATEGORY` and `as:ATTRIBUTE`."""
    found: set[str] = set()
    for item in (part.strip() for part in text.split(",") if part.strip()):
        prefix, _, name = item.partition(":")
        members: Iterable[str]
        if item == "everything":
            members = things
        elif prefix == "kind" and name:
            members = [thing.word for thing in things.values() if thing.category == name]
        elif prefix == "as" and name in earlier:
            members = earlier[name].true_of
        else:
            members = [item] if item in things else []
        if not members:
            raise TableError(f"{where}: {item!r} is not an object, kind:CATEGORY or as:EARLIER_ATTRIBUTE")
        found.update(members)
    return found
