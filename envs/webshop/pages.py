"""The pages of the shop: the visitor's position, the elements that can be clicked, and the text of a page.

Pages and links are those of WebShop: a search page, pages of results, an item with its options, and its description,
features and reviews.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from envs.webshop.catalogue import Catalogue, Item
from envs.webshop.texts import (
    BACK,
    BUY,
    NEXT,
    NOTHING_FOUND,
    PREV,
    SEARCH_BOX,
    Observe,
    describe_item,
    describe_options,
    describe_result,
    with_buttons,
)

Page: TypeAlias = Literal["search", "results", "item", "description", "features", "reviews"]

TABS: tuple[Page, ...] = ("description", "features", "reviews")

_PRAISE = ("Just what I wanted", "Does the job", "Good for the price", "My second one", "Would buy it again")
_BLAME = ("Not for me", "Came late", "Smaller than I thought", "Broke within a month", "Looks unlike the picture")


@dataclass(frozen=True, slots=True)
class Visit:
    """The position of a visitor. Immutable: a click returns a new one.

    hits: items that the last search found, best first.
    number: page of results, from 1.
    item: index of the current item, or None.
    chosen: chosen options of the item, as name and value.
    """

    page: Page = "search"
    hits: tuple[int, ...] = ()
    number: int = 1
    item: int | None = None
    chosen: tuple[tuple[str, str], ...] = ()

    def choose(self, name: str, value: str) -> Visit:
        """Return a copy with an option chosen, replacing an earlier choice of the option."""
        return replace(self, chosen=(*(pair for pair in self.chosen if pair[0] != name), (name, value)))


@dataclass(frozen=True)
class Shop:
    """A catalogue and the appearance of its pages. It has no goal and no visitor."""

    catalogue: Catalogue
    results_per_page: int
    observe: Observe

    def shown(self, visit: Visit) -> tuple[int, ...]:
        """Return the items on the current page of results."""
        first = (visit.number - 1) * self.results_per_page
        return visit.hits[first : first + self.results_per_page]

    def pages(self, visit: Visit) -> int:
        """Return the number of pages of results."""
        return -(-len(visit.hits) // self.results_per_page)

    def names(self, visit: Visit) -> list[str]:
        """Return the names of the items on the current page of results: numbers from 1 if compact, else codes."""
        shown = self.shown(visit)
        if self.observe == "compact":
            return [str(number) for number in range(1, len(shown) + 1)]
        return [self.catalogue.items[index].code for index in shown]

    def clickables(self, visit: Visit) -> list[str]:
        """Return the names of all elements that can be clicked, in lower case."""
        if visit.page == "search":
            return []
        if visit.page == "results":
            turning = ([PREV] if visit.number > 1 else []) + ([NEXT] if visit.number < self.pages(visit) else [])
            return [*self.names(visit), *turning, BACK]
        if visit.page != "item":
            return [PREV, BACK]
        values = [value for _, values in self._item(visit).options for value in values]
        return [*values, BUY, *TABS, PREV, BACK]

    def search(self, words: str) -> Visit:
        """Return the first page of results of a search."""
        return Visit("results", self.catalogue.search(words))

    def click(self, visit: Visit, name: str) -> Visit | None:
        """Return the visit after a click, or None if there is no such element. The environment handles BUY."""
        if name == BACK and visit.page != "search":
            return Visit()
        if visit.page == "results":
            return self._click_result(visit, name)
        if visit.page == "item":
            tab = next((tab for tab in TABS if tab == name), None)
            if tab is not None:
                return replace(visit, page=tab)
            if name == PREV:
                return replace(visit, page="results", item=None, chosen=())
            option = self._item(visit).option_of(name)
            return visit.choose(option, name) if option is not None else None
        return replace(visit, page="item") if name == PREV and visit.page != "search" else None

    def _click_result(self, visit: Visit, name: str) -> Visit | None:
        if name == NEXT and visit.number < self.pages(visit):
            return replace(visit, number=visit.number + 1)
        if name == PREV and visit.number > 1:
            return replace(visit, number=visit.number - 1)
        names = self.names(visit)
        if name not in names:
            return None
        return replace(visit, page="item", item=self.shown(visit)[names.index(name)])

    def describe(self, visit: Visit) -> str:
        """Return the text of a page: if compact, only what is new; if full, all of it with its buttons."""
        if visit.page == "search":
            return SEARCH_BOX
        text = self._describe_results(visit) if visit.page == "results" else self._describe_item(visit)
        if self.observe == "compact":
            return text
        return with_buttons(text, [name for name in self.clickables(visit) if name in _BUTTONS])

    def _describe_results(self, visit: Visit) -> str:
        if not visit.hits:
            return NOTHING_FOUND
        items = self.catalogue.items
        lines = [
            describe_result(name, items[index].title, f"${items[index].price}")
            for name, index in zip(self.names(visit), self.shown(visit), strict=True)
        ]
        return "\n".join((f"Page {visit.number} of {self.pages(visit)}.", *lines))

    def _describe_item(self, visit: Visit) -> str:
        item = self._item(visit)
        if visit.page == "item":
            chosen = dict(visit.chosen)
            if self.observe == "compact":
                return describe_options(item.options, chosen)
            return describe_item(item.title, f"${item.price}", str(item.rating), item.options, chosen)
        if visit.page == "description":
            return describe_at_length(item)
        if visit.page == "features":
            return "\n".join(f"- {attribute}" for attribute in (*item.attributes, f"with {item.part}"))
        return describe_reviews(item)

    def _item(self, visit: Visit) -> Item:
        assert visit.item is not None, f"a page {visit.page!r} of no item"
        return self.catalogue.items[visit.item]


_BUTTONS = frozenset({BACK, NEXT, PREV, BUY, *TABS})


def describe_at_length(item: Item) -> str:
    """Return the description of an item."""
    return (
        f"{item.type.capitalize()} of {item.material} by {item.brand}, with {item.part}: {', '.join(item.attributes)}. "
        f"In {item.category.department}, {item.category.name}."
    )


def describe_reviews(item: Item) -> str:
    """Return up to three reviews; an item always has the same ones."""
    rng = random.Random(f"reviews {item.index} {item.title}")
    lines = []
    for _ in range(rng.randint(0, 3)):
        stars = min(5, max(1, round(rng.gauss(item.rating, 1))))
        lines.append(f'{stars} stars: "{rng.choice(_PRAISE if stars > 2 else _BLAME)}."')
    return "\n".join(lines) or "No reviews yet."
