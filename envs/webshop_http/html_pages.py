"""Parses the pages of a WebShop site by the elements of its templates.

Every page except the last has `#instruction-text`. The search page has a form with `#search_input`. Results are
`.searched-product` with a link `.product-link`. Options of an item are radio buttons whose `data-url` is the address
that chooses them. All other buttons are forms. The last page has the score in `#reward pre`. The address that buys ends
in the chosen options, as a Python dictionary after the session and the code of the item.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import unquote

from selectolax.lexbor import LexborHTMLParser, LexborNode

from envs.errors import EnvFailedError
from envs.webshop.texts import BUY

Kind: TypeAlias = Literal["search", "results", "item", "tab", "done"]


@dataclass(frozen=True)
class Link:
    """The target of an element: its address, unchanged, and the HTTP method."""

    address: str
    method: Literal["GET", "POST"]


@dataclass(frozen=True)
class Result:
    """One item on a page of results; `code` is unchanged."""

    code: str
    title: str
    price: str


@dataclass(frozen=True)
class SitePage:
    """One page.

    links: all elements that can be clicked, by name in lower case: codes of items, values of options, buttons.
    buttons: the names that are buttons.
    search: the form of the search page.
    heading: of results, "Page 1 (Total results: 50)"; of an item, its title.
    options: of an item, name and values.
    chosen: option name -> chosen value.
    lines: text of a description, feature list or review page.
    score: of the last page.
    """

    kind: Kind
    instruction: str = ""
    links: Mapping[str, Link] = field(default_factory=dict)
    buttons: tuple[str, ...] = ()
    search: Link | None = None
    heading: str = ""
    results: tuple[Result, ...] = ()
    price: str = ""
    rating: str = ""
    options: tuple[tuple[str, tuple[str, ...]], ...] = ()
    chosen: Mapping[str, str] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    score: float | None = None


def read_page(html: str) -> SitePage:
    """Parse a page. Raises EnvFailedError if it is not a page of WebShop."""
    tree = LexborHTMLParser(html)
    reward = tree.css_first("#reward pre")
    if reward is not None:
        return SitePage("done", score=_read_score(_text(reward)))
    node = tree.css_first("#instruction-text")
    if node is None:
        raise EnvFailedError(f"not a page of WebShop: it has neither #instruction-text nor #reward: {html[:200]!r}")
    instruction = re.sub(r"^Instruction: ?", "", _text(node))
    forms = _read_forms(tree)
    if tree.css_first("#search_input") is not None:
        return SitePage("search", instruction, search=forms.get("search"))
    results = tuple(_read_result(node) for node in tree.css(".searched-product"))
    links = {_text(a).lower(): Link(a.attributes.get("href") or "", "GET") for a in tree.css("a.product-link")}
    options, choices = _read_options(tree)
    page = {"instruction": instruction, "links": {**choices, **links, **forms}, "buttons": tuple(forms)}
    if BUY in forms:
        facts = _read_facts(tree)
        chosen = _read_chosen(forms[BUY].address)
        return SitePage("item", **page, **facts, options=options, chosen=chosen)  # type: ignore[arg-type]
    heading = next((_text(node) for node in tree.css("h3") if _text(node).startswith("Page ")), "")
    if heading:
        return SitePage("results", **page, heading=heading, results=results)  # type: ignore[arg-type]
    return SitePage("tab", **page, lines=_read_lines(tree))  # type: ignore[arg-type]


_ROUND = str.maketrans("[]", "()")


def _text(node: LexborNode | None) -> str:
    """Return the text of a node with single spaces; "" for None."""
    return "" if node is None else " ".join(node.text(separator=" ").split())


def _read_forms(tree: LexborHTMLParser) -> dict[str, Link]:
    """Return each form by the name of its button, in lower case."""
    found: dict[str, Link] = {}
    for form in tree.css("form"):
        name = _text(form.css_first("button")).lower()
        if name:
            method = (form.attributes.get("method") or "get").upper()
            found[name] = Link(form.attributes.get("action") or "", "POST" if method == "POST" else "GET")
    return found


def _read_result(node: LexborNode) -> Result:
    code, title, price = (_text(node.css_first(f".product-{part}")) for part in ("asin", "title", "price"))
    return Result(code, title, price)


def _read_options(tree: LexborHTMLParser) -> tuple[tuple[tuple[str, tuple[str, ...]], ...], dict[str, Link]]:
    """Return an item's options and the link that chooses each value; the first link counts if values are equal."""
    options: dict[str, list[str]] = {}
    links: dict[str, Link] = {}
    for radio in tree.css('input[type="radio"]'):
        # The brackets of an action cannot contain brackets.
        value = " ".join((radio.attributes.get("value") or "").translate(_ROUND).split())
        options.setdefault(radio.attributes.get("name") or "", []).append(value)
        links.setdefault(value.lower(), Link(radio.attributes.get("data-url") or "", "GET"))
    return tuple((name, tuple(values)) for name, values in options.items()), links


def _read_facts(tree: LexborHTMLParser) -> dict[str, str]:
    """Return title, price and rating of an item."""
    facts = {"heading": _text(tree.css_first("h2")), "price": "", "rating": ""}
    for node in tree.css("h4"):
        name, colon, value = _text(node).partition(": ")
        if colon and name in ("Price", "Rating"):
            facts[name.lower()] = value
    return facts


def _read_chosen(address: str) -> dict[str, str]:
    """Return the options in an address that buys, /done/SESSION/CODE/{...}."""
    literal = unquote(address).partition("/done/")[2].split("/", 2)[-1]
    try:
        chosen = ast.literal_eval(literal)
    except (ValueError, SyntaxError) as error:
        raise EnvFailedError(f"not a page of WebShop: its address to buy has no options: {address!r}") from error
    return {str(name): str(value) for name, value in dict(chosen).items()}


def _read_lines(tree: LexborHTMLParser) -> tuple[str, ...]:
    """Return the lines of a description, feature list or review page."""
    nodes = tree.css(".card-body p, .card-body h4, .product-category, .product-query, .product-product_category")
    return tuple(text for node in nodes if (text := _text(node)))


def _read_score(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise EnvFailedError(f"not a page of WebShop: its #reward is not a number: {text[:50]!r}") from error
