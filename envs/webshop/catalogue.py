"""The catalogue: items drawn from a seed. Each process makes a catalogue once and shares it.

`data/catalogue.toml` holds the parts of items and documents its format; reading it checks it. Items are immutable, so
threads can share them.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib.resources import files
from typing import Any

from envs.errors import EnvArgumentError, EnvError, nearest
from envs.webshop.search import Index

MAX_ITEMS = 100_000
RESULTS = 50
"""Greatest number of items that a search returns, as in WebShop."""

_FIELDS = {"department", "types", "materials", "parts", "attributes", "options", "price"}


class CatalogueError(EnvError):
    """The data of the catalogue contradict themselves."""


@dataclass(frozen=True)
class Category:
    """The parts from which the items of one category are drawn."""

    name: str
    department: str
    types: tuple[str, ...]
    materials: tuple[str, ...]
    parts: tuple[str, ...]
    attributes: tuple[str, ...]
    options: Mapping[str, tuple[str, ...]]
    price: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Item:
    """One item for sale.

    index: position in the catalogue.
    code: ten characters, as in WebShop; unique.
    attributes: what a goal can ask for. The title contains the first one, the features all of them.
    options: name and values; a buyer chooses one value of each.
    price: whole dollars.
    rating: 1 to 5 stars.
    """

    index: int
    code: str
    title: str
    category: Category
    type: str
    brand: str
    material: str
    part: str
    attributes: tuple[str, ...]
    options: tuple[tuple[str, tuple[str, ...]], ...]
    price: int
    rating: float

    @property
    def path(self) -> tuple[str, str, str]:
        """Department, category and type, from the widest to the narrowest."""
        return self.category.department, self.category.name, self.type

    @property
    def nouns(self) -> frozenset[str]:
        """The nouns of the title, in lower case. Titles are compared by them."""
        return frozenset((self.brand.lower(), self.material, *self.type.split(), *self.part.split()))

    def option_of(self, value: str) -> str | None:
        """Return the name of the option that has `value`, or None."""
        return next((name for name, values in self.options if value in values), None)

    def words(self) -> str:
        """Return the text that a search reads."""
        values = (value for _, values in self.options for value in values)
        return " ".join((self.title, *self.path, *self.attributes, *values))


_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
# Coprime to 36, so that codes are unique; large, so that consecutive codes differ in most characters.
_STRIDE = 1_611_392_834_573


class Catalogue:
    """Items for sale, and the search over them."""

    def __init__(self, items: tuple[Item, ...]) -> None:
        self.items = items

    @cached_property
    def index(self) -> Index:
        """The search index, built at the first search."""
        return Index([item.words() for item in self.items])

    @cached_property
    def types(self) -> tuple[str, ...]:
        """The types of the items, sorted."""
        return tuple(sorted({item.type for item in self.items}))

    def search(self, words: str) -> tuple[int, ...]:
        """Return the indices of the best matches, best first, at most RESULTS; () if nothing matches."""
        return self.index.search(words, RESULTS)


def load_catalogue(items: int = 1000, seed: int = 0, departments: Sequence[str] | None = None) -> Catalogue:
    """Return the catalogue of a seed, made once per process.

    items: number of items, 1 to MAX_ITEMS.
    departments: departments of the items; None for all.

    Raises EnvArgumentError that names the wrong argument.
    """
    if not isinstance(items, int) or not 1 <= items <= MAX_ITEMS:
        raise EnvArgumentError(f"webshop: items is {items!r}, must be a whole number from 1 to {MAX_ITEMS:,}")
    if not isinstance(seed, int):
        raise EnvArgumentError(f"webshop: catalogue_seed is {seed!r}, must be a whole number")
    known = {category.department for category in read_data()[1]}
    if departments is None:
        departments = tuple(known)
    if isinstance(departments, str) or not departments:
        raise EnvArgumentError(f"webshop: departments is {departments!r}: give a list of {', '.join(sorted(known))}")
    for department in departments:
        if department not in known:
            raise EnvArgumentError(f"webshop: no department {department!r}: {nearest(str(department), known)}")
    return _draw_catalogue(items, seed, frozenset(departments))


# A catalogue of 100,000 items takes 300 MB, so only the last few are kept.
@lru_cache(maxsize=4)
def _draw_catalogue(items: int, seed: int, departments: frozenset[str]) -> Catalogue:
    brands, categories = read_data()
    shelves = [
        (category, type_) for category in categories if category.department in departments for type_ in category.types
    ]
    rng = random.Random(f"catalogue {seed}")
    return Catalogue(tuple(_draw_item(rng, index, brands, *rng.choice(shelves)) for index in range(items)))


def _draw_item(rng: random.Random, index: int, brands: tuple[str, ...], category: Category, type_: str) -> Item:
    brand, material, part = rng.choice(brands), rng.choice(category.materials), rng.choice(category.parts)
    attributes = tuple(rng.sample(category.attributes, rng.randint(3, 5)))
    options = tuple(
        (name, tuple(sorted(rng.sample(values, rng.randint(2, min(4, len(values)))), key=values.index)))
        for name, values in category.options.items()
    )
    return Item(
        index=index,
        code=code_of(index),
        title=f"{brand} {material} {type_} with {part}, {attributes[0]}",
        category=category,
        type=type_,
        brand=brand,
        material=material,
        part=part,
        attributes=attributes,
        options=options,
        price=rng.randint(*category.price),
        rating=rng.randint(25, 50) / 10,
    )


def code_of(index: int) -> str:
    """Return the code of an item, in lower case."""
    number, code = index * _STRIDE % 36**8, ""
    for _ in range(8):
        number, digit = divmod(number, 36)
        code = _DIGITS[digit] + code
    return "b0" + code


@cache
def read_data() -> tuple[tuple[str, ...], tuple[Category, ...]]:
    """Return the brands and categories of `data/catalogue.toml`. Raises CatalogueError that names the wrong entry."""
    data = tomllib.loads(files(__package__).joinpath("data", "catalogue.toml").read_text(encoding="utf-8"))
    brands = tuple(data.pop("brands"))
    categories = tuple(_read_category(name, entry) for name, entry in data.items())
    types = [type_ for category in categories for type_ in category.types]
    if len(set(types)) != len(types) or len(set(brands)) != len(brands):
        raise CatalogueError("catalogue.toml: a brand or type occurs twice")
    return brands, categories


def _read_category(name: str, entry: Mapping[str, Any]) -> Category:
    if entry.keys() != _FIELDS:
        raise CatalogueError(f"catalogue.toml: {name}: missing or unknown: {sorted(entry.keys() ^ _FIELDS)}")
    options = {option: tuple(values) for option, values in entry["options"].items()}
    values = [value for of_one in options.values() for value in of_one]
    if len(set(values)) != len(values):
        raise CatalogueError(f"catalogue.toml: {name}: an option's value occurs twice, so a click would be ambiguous")
    if any(" " not in type_ for type_ in entry["types"]):
        raise CatalogueError(f"catalogue.toml: {name}: a type has only one word")
    low, high = entry["price"]
    return Category(
        name,
        entry["department"],
        tuple(entry["types"]),
        tuple(entry["materials"]),
        tuple(entry["parts"]),
        tuple(entry["attributes"]),
        options,
        (low, high),
    )
