"""What the player is asked to buy, and what a purchase is worth.

The score is that of WebShop (Yao et al. 2022, section 3.2 and appendix A.5):

    r = r_type (attributes that match + options that match + [price is at most the limit]) / (attributes + options + 1)

where r_type compares the types of the item bought and the item meant: 0 where their titles share no noun, 0.1 where
they share less than a tenth of the goal's, 0.5 where they share at most a fifth and neither the type nor two levels of
the category are the same, else 1. There the titles' nouns are found by a tagger and attributes and options matched
loosely; here they are known and matched exactly.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from envs.webshop.catalogue import Catalogue, Item

_TEMPLATES = (
    "Find {attributes} {type} with {options}, price lower than {limit} dollars.",
    "I am looking for {type} that is {attributes}, with {options}, and price lower than {limit} dollars.",
    "I need {attributes} {type}, {options}, for less than {limit} dollars.",
    "Buy me {type} with {options}, {attributes}, under {limit} dollars.",
)


@dataclass(frozen=True)
class Goal:
    """What to buy.

    item: index of the item that was in mind; another one that fits as well is worth as much.
    options: name and value of each. limit: the greatest price, dollars.
    """

    item: int
    type: str
    attributes: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    limit: int
    instruction: str


def draw_goal(catalogue: Catalogue, rng: random.Random) -> Goal:
    """A goal that some item of the catalogue fits wholly: one to three of its attributes, a value of each option, and
    a price limit that is one of the next four multiples of ten above its price."""
    item = rng.choice(catalogue.items)
    attributes = tuple(rng.sample(item.attributes, rng.randint(1, 3)))
    options = tuple((name, rng.choice(values)) for name, values in item.options)
    limit = (item.price // 10 + rng.randint(1, 4)) * 10
    instruction = rng.choice(_TEMPLATES).format(
        type=item.type,
        attributes=", ".join(attributes),
        options=", ".join(f"{name} {value}" for name, value in options),
        limit=limit,
    )
    return Goal(item.index, item.type, attributes, options, limit, instruction)


def score(catalogue: Catalogue, goal: Goal, item: Item, chosen: Mapping[str, str]) -> float:
    """What buying `item` with the options `chosen` (name to value) is worth, 0 to 1."""
    matched = sum(attribute in item.attributes for attribute in goal.attributes)
    matched += sum(chosen.get(name) == value for name, value in goal.options)
    matched += item.price <= goal.limit
    return score_type(catalogue.items[goal.item], item) * matched / (len(goal.attributes) + len(goal.options) + 1)


def score_type(meant: Item, bought: Item) -> float:
    """How far the type of what was bought is what was meant: 0, 0.1, 0.5 or 1."""
    shared = len(meant.nouns & bought.nouns) / len(meant.nouns)
    if shared == 0:
        return 0.0
    if shared < 0.1:
        return 0.1
    same = meant.type == bought.type or len({*meant.path} & {*bought.path}) >= 2
    return 1.0 if same or shared > 0.2 else 0.5


def fitting_options(goal: Goal, item: Item) -> dict[str, str]:
    """The goal's options that `item` has: what to choose when buying it."""
    offered = dict(item.options)
    return {name: value for name, value in goal.options if value in offered.get(name, ())}


def best_score(catalogue: Catalogue, goal: Goal, item: Item) -> float:
    """The most that buying `item` can be worth."""
    return score(catalogue, goal, item, fitting_options(goal, item))
