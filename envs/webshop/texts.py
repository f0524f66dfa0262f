"""How a shop talks, the generated one and a real site alike: buttons, answers, and pages in words.

Compact leaves out the buttons that are always there and what was read on the page before; full leaves out nothing.
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


def tell_result(name: str, title: str, price: str) -> str:
    """One line of a page of results; `name` is what to click."""
    return f"[{name}] {title} {price}"


def tell_item(
    title: str, price: str, rating: str, options: Iterable[tuple[str, Sequence[str]]], chosen: Mapping[str, str]
) -> str:
    """An item's page; what is chosen of an option (name to value) stands behind it."""
    lines = [title, f"Price: {price}", f"Rating: {rating}"]
    for name, values in options:
        choice = f" (chosen: {chosen[name]})" if name in chosen else ""
        lines.append(f"{name}: {' '.join(f'[{value}]' for value in values)}{choice}")
    return "\n".join(lines)


def tell_options(options: Iterable[tuple[str, Sequence[str]]], chosen: Mapping[str, str]) -> str:
    """An item's page, compact: what is chosen, or what there is to choose from where nothing is."""
    if chosen:
        return f"Chosen: {', '.join(chosen.values())}."
    return "\n".join(f"{name}: {', '.join(values)}" for name, values in options) or "No options."


def tell_bought(score: float) -> str:
    """The last page."""
    return f"Bought. Score: {score:.2f}."


def with_buttons(text: str, names: Iterable[str]) -> str:
    """A page of the full telling: its text, then its buttons."""
    return f"{text}\n{' '.join(f'[{name}]' for name in names)}"
