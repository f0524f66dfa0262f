"""Texts of the shop, shared by the generated shop and by `envs.webshop_http`: buttons, answers and pages.

Compact pages omit buttons that are always present and text of the page before. Full pages omit nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

Observe: TypeAlias = Literal["compact", "full"]

BACK, NEXT, PREV, BUY = "back to search", "next >", "< prev", "buy now"

HELP = (
    "Say search[words] or click[name]: a result, an option, description, features, reviews, next >, < prev, "
    "back to search, buy now."
)
INVALID = "Invalid action."
NO_BOX = "There is no search box on this page."
NO_WORDS = "Say what to search for."
NO_BUTTON = "There is no such button on this page."
SEARCH_BOX = "Search box."
NOTHING_FOUND = "Nothing found."


def describe_result(name: str, title: str, price: str) -> str:
    """Return one line of a page of results; `name` is the element to click."""
    return f"[{name}] {title} {price}"


def describe_item(
    title: str, price: str, rating: str, options: Iterable[tuple[str, Sequence[str]]], chosen: Mapping[str, str]
) -> str:
    """Return the page of an item, with the chosen value (name -> value) after each option."""
    lines = [title, f"Price: {price}", f"Rating: {rating}"]
    for name, values in options:
        choice = f" (chosen: {chosen[name]})" if name in chosen else ""
        lines.append(f"{name}: {' '.join(f'[{value}]' for value in values)}{choice}")
    return "\n".join(lines)


def describe_options(options: Iterable[tuple[str, Sequence[str]]], chosen: Mapping[str, str]) -> str:
    """Return the compact page of an item: the chosen options, or all options if none is chosen."""
    if chosen:
        return f"Chosen: {', '.join(chosen.values())}."
    return "\n".join(f"{name}: {', '.join(values)}" for name, values in options) or "No options."


def describe_purchase(score: float) -> str:
    """Return the last page."""
    return f"Bought. Score: {score:.2f}."


def with_buttons(text: str, names: Iterable[str]) -> str:
    """Return a full page: its text, then its buttons."""
    return f"{text}\n{' '.join(f'[{name}]' for name in names)}"
