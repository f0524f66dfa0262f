"""Goals: the instructions, and the score of a purchase.

The score is that of WebShop (Yao et al. 2022, section 3.2 and appendix A.5):

    r = r_type (attributes that match + options that match + [price is at most the limit]) / (attributes + options + 1)

r_type compares the types of the bought item and of the goal's item. It is 0 if their titles share no noun, 0.1 if they
share less than a tenth of the goal's nouns, 0.5 if they share at most a fifth and differ in type and in two levels of
the category, else 1. WebShop finds nouns with a tagger and matches attributes and options approximately; here they are
known and matched exactly.
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

    item: index of the item from which the goal was drawn. An item that fits as well has the same score.
    options: name and value of each option.
    limit: greatest price, in dollars.
    """

    item: int
    type: str
    attributes: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    limit: int
    instruction: str


def draw_goal(catalogue: Catalogue, rng: random.Random) -> Goal:
    """Draw a goal that at least one item of the catalogue fits completely.

    It has one to three attributes of the item, a value of each option, and a price limit that is one of the next four
    multiples of ten above the price.
    """
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
    """Return the score of buying `item` with the options `chosen` (name -> value), 0 to 1."""
    matched = sum(attribute in item.attributes for attribute in goal.attributes)
    matched += sum(chosen.get(name) == value for name, value in goal.options)
    matched += item.price <= goal.limit
    return score_type(catalogue.items[goal.item], item) * matched / (len(goal.attributes) + len(goal.options) + 1)


def score_type(meant: Item, bought: Item) -> float:
    """Return how well the type of the bought item matches that of the goal's item: 0, 0.1, 0.5 or 1."""
    shared = len(meant.nouns & bought.nouns) / len(meant.nouns)
    if shared == 0:
        return 0.0
    if shared < 0.1:
        return 0.1
    same = meant.type == bought.type or len({*meant.path} & {*bought.path}) >= 2
    return 1.0 if same or shared > 0.2 else 0.5


def fitting_options(goal: Goal, item: Item) -> dict[str, str]:
    """Return the goal's options that `item` has, which are those to choose when buying it."""
    offered = dict(item.options)
    return {name: value for name, value in goal.options if value in offered.get(name, ())}


def best_score(catalogue: Catalogue, goal: Goal, item: Item) -> float:
    """Return the greatest score that buying `item` can give."""
    return score(catalogue, goal, item, fitting_options(goal, item))
