"""The pages of a WebShop site, read by what marks them in its templates.

Every page but the last one has `#instruction-text`. The search page has `#search_input` in a form; results are
`.searched-product` with a link `.product-link`; an item's options are radio buttons, each with the address that chooses
it in `data-url`; all other buttons are forms of their own; the last page has the score in `#reward pre`. What was
chosen so far stands in the address that buys: a Python dictionary, after the session and the item's code.
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
    """Where something on a page leads: an address as it stands there, and how to go."""

    address: str
    method: Literal["GET", "POST"]


@dataclass(frozen=True)
class Result:
    """One item on a page of results; `code` as it stands there."""

    code: str
    title: str
    price: str


@dataclass(frozen=True)
class SitePage:
    """One page.

    links: all that can be clicked, by its name in lower case: codes of items, values of options, buttons.
    buttons: the names among them that are buttons. search: the form of the search page.
    heading: of results, "Page 1 (Total results: 50)"; of an item, its title.
    options: of an item, name and values; chosen: name to value. lines: the text of a description, features or reviews.
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
    """Read a page. Raises EnvFailedError where it is none of WebShop's."""
    tree = LexborHTMLParser(html)
    reward = tree.css_first("#reward pre")
    if reward is not None:
        return SitePage("done", score=_read_score(_text(reward)))
    told = tree.css_first("#instruction-text")
    if told is None:
        raise EnvFailedError(f"not a page of WebShop, it has neither #instruction-text nor #reward: {html[:200]!r}")
    instruction = re.sub(r"^Instruction: ?", "", _text(told))
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
    """The text of a node with single spaces, or "" for none."""
    return "" if node is None else " ".join(node.text(separator=" ").split())


def _read_forms(tree: LexborHTMLParser) -> dict[str, Link]:
    """Each form by the name of its button, in lower case."""
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
    """An item's options, name and values, and the link that chooses each value (the first one of equal names)."""
    options: dict[str, list[str]] = {}
    links: dict[str, Link] = {}
    for radio in tree.css('input[type="radio"]'):
        # An action's brackets can't hold brackets.
        value = " ".join((radio.attributes.get("value") or "").translate(_ROUND).split())
        options.setdefault(radio.attributes.get("name") or "", []).append(value)
        links.setdefault(value.lower(), Link(radio.attributes.get("data-url") or "", "GET"))
    return tuple((name, tuple(values)) for name, values in options.items()), links


def _read_facts(tree: LexborHTMLParser) -> dict[str, str]:
    """Title, price and rating of an item."""
    facts = {"heading": _text(tree.css_first("h2")), "price": "", "rating": ""}
    for node in tree.css("h4"):
        name, colon, value = _text(node).partition(": ")
        if colon and name in ("Price", "Rating"):
            facts[name.lower()] = value
    return facts


def _read_chosen(address: str) -> dict[str, str]:
    """The options in an address that buys, /done/SESSION/CODE/{...}."""
    literal = unquote(address).partition("/done/")[2].split("/", 2)[-1]
    try:
        chosen = ast.literal_eval(literal)
    except (ValueError, SyntaxError) as error:
        raise EnvFailedError(f"not a page of WebShop, its address to buy ends in no options: {address!r}") from error
    return {str(name): str(value) for name, value in dict(chosen).items()}


def _read_lines(tree: LexborHTMLParser) -> tuple[str, ...]:
    """The text of a description, of features or of reviews: its innermost pieces, one a line."""
    nodes = tree.css(".card-body p, .card-body h4, .product-category, .product-query, .product-product_category")
    return tuple(text for node in nodes if (text := _text(node)))


def _read_score(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise EnvFailedError(f"not a page of WebShop, its #reward is no number: {text[:50]!r}") from error
