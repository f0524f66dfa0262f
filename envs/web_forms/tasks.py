"""Sites and tasks drawn from a seed. The instruction states the task; the submitted form decides the reward."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from envs.web_forms.site import PASSWORD, USER, Element, Page, Posted, Site, Value
from envs.web_forms.vocabulary import (
    BOXES,
    CHOICES,
    CITIES,
    FIRST_NAMES,
    FORM_TITLES,
    LAST_NAMES,
    LISTS,
    PASSWORDS,
    SECTIONS,
    SEND_LABELS,
    SHOP_BUTTONS,
    STREETS,
    TEXT_LABELS,
)


@dataclass(frozen=True)
class Task:
    """A task on a site.

    wanted: what must be submitted, exactly.
    needs: values to set on the way, by key, user and password included.
    """

    kind: str
    instruction: str
    site: Site
    wanted: Posted
    needs: Mapping[str, Value]


@dataclass(frozen=True)
class Item:
    """A field of a form: its elements, its first value, the value that the task asks for, and the words that ask for
    it.
    """

    elements: tuple[Element, ...]
    initial: Value
    wanted: Value
    asks: str

    @property
    def key(self) -> str:
        return self.elements[0].key


def draw_task(seed: int, kinds: Sequence[str]) -> Task:
    """Return the site and task of a seed, of one of `kinds`."""
    rng = random.Random(seed)
    return KINDS[rng.choice(kinds)](rng)


def _text(rng: random.Random, label: str) -> Item:
    value = {
        "Name": lambda: f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}",
        "City": lambda: rng.choice(CITIES),
        "Email": lambda: f"{rng.choice(FIRST_NAMES).lower()}@{rng.choice(LAST_NAMES).lower()}.org",
        "Phone": lambda: f"555 {rng.randrange(1000, 10000)}",
        "Street": lambda: f"{rng.randrange(1, 100)} {rng.choice(STREETS)} Street",
    }[label]()
    return Item((Element("textbox", label),), "", value, f'set {label} to "{value}"')


def _list(rng: random.Random, label: str) -> Item:
    initial, wanted = rng.sample(LISTS[label], 2)
    return Item((Element("combobox", label, options=LISTS[label]),), initial, wanted, f'set {label} to "{wanted}"')


def _box(rng: random.Random, label: str) -> Item:
    initial = rng.random() < 0.3
    return Item((Element("checkbox", label),), initial, not initial, f"turn {'off' if initial else 'on'} {label}")


def _choice(rng: random.Random, label: str) -> Item:
    initial, wanted = rng.sample(CHOICES[label], 2)
    buttons = tuple(Element("radio", value, group=label) for value in CHOICES[label])
    return Item(buttons, initial, wanted, f'set {label} to "{wanted}"')


_FIELDS: Mapping[str, tuple[Callable[[random.Random, str], Item], Sequence[str]]] = {
    "text": (_text, TEXT_LABELS),
    "list": (_list, tuple(LISTS)),
    "box": (_box, BOXES),
    "choice": (_choice, tuple(CHOICES)),
}


def _items(rng: random.Random, counts: Mapping[str, int]) -> list[Item]:
    """Draw the given number of fields of each sort, shuffled."""
    found = [
        draw(rng, label)
        for sort, count in counts.items()
        for draw, labels in [_FIELDS[sort]]
        for label in rng.sample(labels, count)
    ]
    rng.shuffle(found)
    return found


def _instruction(asked: Sequence[Item], end: str) -> str:
    asks = [item.asks for item in asked]
    listed = asks[0] if len(asks) == 1 else ", ".join(asks[:-1]) + " and " + asks[-1]
    return f"{listed[0].upper()}{listed[1:]}, then {end}."


def _elements(items: Sequence[Item]) -> tuple[Element, ...]:
    return tuple(element for item in items for element in item.elements)


def _wanted(items: Sequence[Item], asked: Sequence[Item]) -> dict[str, Value]:
    return {item.key: item.wanted if item in asked else item.initial for item in items}


def _one_form(rng: random.Random, kind: str, items: Sequence[Item], asked: Sequence[Item]) -> Task:
    """Return a task on one page with all `items`, a button that submits them and one that clears them."""
    title, send = rng.choice(FORM_TITLES), rng.choice(SEND_LABELS)
    buttons = [
        Element("button", send, does="post", form=title, sends=tuple(item.key for item in items)),
        Element("button", "Clear", does="clear"),
    ]
    page = Page(title, (*_elements(items), *buttons))
    site = Site({"form": page}, "form", {item.key: item.initial for item in items})
    posted = Posted(title, _wanted(items, asked))
    return Task(kind, _instruction(asked, f"press {send}"), site, posted, {item.key: item.wanted for item in asked})


def _draw_single(kind: str, counts: Mapping[str, int], most: int) -> Callable[[random.Random], Task]:
    """Return a function that draws a form in which the task asks for 1 to `most` fields."""

    def draw(rng: random.Random) -> Task:
        items = _items(rng, counts)
        chosen = rng.sample(range(len(items)), rng.randint(1, most))
        return _one_form(rng, kind, items, [item for place, item in enumerate(items) if place in chosen])

    return draw


def _draw_form(rng: random.Random) -> Task:
    """Draw a form with fields of all sorts, of which the task asks for two or three."""
    items = _items(rng, {"text": rng.randint(1, 2), "list": 1, "box": rng.randint(0, 1), "choice": 1})
    chosen = rng.sample(range(len(items)), min(rng.randint(2, 3), len(items)))
    return _one_form(rng, "form", items, [item for place, item in enumerate(items) if place in chosen])


def _basket_button(label: str, product: str) -> Element:
    return Element("button", label, does="post", form=label, fixed=(("item", product),))


def _draw_link(rng: random.Random) -> Task:
    """Draw pages that are one link away, each with a button."""
    button = rng.choice(SHOP_BUTTONS)
    products = rng.sample(SECTIONS[rng.choice(list(SECTIONS))], rng.randint(3, 4))
    target = rng.choice(products)
    home = Page("Shop", tuple(Element("link", product, to=product) for product in products))
    pages = {"home": home} | {
        product: Page(product.capitalize(), (_basket_button(button, product), Element("link", "Home", to="home")))
        for product in products
    }
    instruction = f'Find the page of the {target} and press "{button}".'
    return Task("link", instruction, Site(pages, "home", {}), Posted(button, {"item": target}), {})


def _draw_find(rng: random.Random) -> Task:
    """Draw products that are two links away, in a section that the task names."""
    sections = rng.sample(list(SECTIONS), 3)
    shelves = {section: rng.sample(SECTIONS[section], 3) for section in sections}
    section = rng.choice(sections)
    return _shop(rng, "find", shelves, rng.choice(shelves[section]), f" in {section}")


def _draw_search(rng: random.Random) -> Task:
    """Draw products that are two links away, on shelves whose names do not help."""
    products = rng.sample([product for section in SECTIONS.values() for product in section], 9)
    shelves = {f"Shelf {number + 1}": products[number::3] for number in range(3)}
    return _shop(rng, "search", shelves, rng.choice(products), "")


def _shop(rng: random.Random, kind: str, shelves: Mapping[str, Sequence[str]], target: str, where: str) -> Task:
    """Return a task on a page of links to shelves, shelves with links to products, and products with two buttons."""
    home = Element("link", "Home", to="home")
    pages = {"home": Page("Shop", tuple(Element("link", shelf, to=shelf) for shelf in shelves))}
    buttons = rng.sample(SHOP_BUTTONS, 2)
    for shelf, products in shelves.items():
        pages[shelf] = Page(shelf, (*(Element("link", product, to=product) for product in products), home))
        for product in products:
            shop = (_basket_button(label, product) for label in buttons)
            pages[product] = Page(product.capitalize(), (*shop, Element("link", shelf, to=shelf), home))
    pressed = rng.choice(buttons)
    instruction = f'Find the {target}{where} and press "{pressed}".'
    return Task(kind, instruction, Site(pages, "home", {}), Posted(pressed, {"item": target}), {})


def _draw_pages(rng: random.Random) -> Task:
    """Draw a form over two or three pages, with Next and Back between them."""
    title, send, count = rng.choice(FORM_TITLES), rng.choice(SEND_LABELS), rng.randint(2, 3)
    items = _items(rng, {"text": 2, "list": 2, "box": 1, "choice": count - 2})
    parts = [items[start::count] for start in range(count)]
    asked = [rng.choice(part) for part in parts]
    names = [f"page {number + 1}" for number in range(count)]
    pages = {}
    for number, (name, part) in enumerate(zip(names, parts, strict=True)):
        buttons = []
        if number:
            buttons.append(Element("button", "Back", does="go", to=names[number - 1]))
        if number + 1 < count:
            buttons.append(Element("button", "Next", does="go", to=names[number + 1]))
        else:
            buttons.append(Element("button", send, does="post", form=title, sends=tuple(item.key for item in items)))
        pages[name] = Page(f"{title}, {name} of {count}", (*_elements(part), *buttons))
    site = Site(pages, names[0], {item.key: item.initial for item in items})
    posted = Posted(title, _wanted(items, asked))
    return Task("pages", _instruction(asked, f"press {send}"), site, posted, {item.key: item.wanted for item in asked})


def _draw_log_in(rng: random.Random) -> Task:
    """Draw a site with a log-in and pages of settings, of which the task changes one setting."""
    user, password = rng.choice(FIRST_NAMES).lower(), rng.choice(PASSWORDS)
    first, second = (_items(rng, counts) for counts in ({"list": 1, "box": 1}, {"choice": 1, "box": 1}))
    while {item.key for item in first} & {item.key for item in second}:
        second = _items(rng, {"choice": 1, "box": 1})
    settings = {"Profile": first, "Privacy": second}
    chosen = rng.choice(list(settings))
    asked = [rng.choice(settings[chosen])]
    home = Element("link", "Home", to="home")
    fields = (Element("textbox", USER), Element("textbox", PASSWORD))
    greeting = (Element("text", "Log in to see your account."), Element("link", "Log in", to="log in"))
    pages = {
        "home": Page("Welcome", greeting),
        "log in": Page("Log in", (*fields, Element("button", "Log in", does="log in", to="account"), home)),
        "account": Page("Account", (*(Element("link", name, to=name) for name in settings), home)),
    }
    for name, items in settings.items():
        save = Element("button", "Save", does="post", form=name, sends=tuple(item.key for item in items))
        pages[name] = Page(name, (*_elements(items), save, Element("link", "Account", to="account")))
    initial: dict[str, Value] = {item.key: item.initial for items in settings.values() for item in items}
    site = Site(pages, "home", initial | {USER: "", PASSWORD: ""}, (user, password))
    instruction = f'Log in as "{user}" with password "{password}". Under {chosen}, {asked[0].asks}, then press Save.'
    wanted = Posted(chosen, _wanted(settings[chosen], asked))
    needs: dict[str, Value] = {USER: user, PASSWORD: password, asked[0].key: asked[0].wanted}
    return Task("log_in", instruction, site, wanted, needs)


KINDS: Mapping[str, Callable[[random.Random], Task]] = {
    "text": _draw_single("text", {"text": 2}, 1),
    "list": _draw_single("list", {"list": 2}, 1),
    "box": _draw_single("box", {"box": 3}, 2),
    "choice": _draw_single("choice", {"choice": 1}, 1),
    "link": _draw_link,
    "form": _draw_form,
    "find": _draw_find,
    "search": _draw_search,
    "pages": _draw_pages,
    "log_in": _draw_log_in,
}
"""Kind -> the function that draws a task of it."""

LEVELS: Mapping[int, tuple[str, ...]] = {
    1: ("text", "list", "box", "choice", "link"),
    2: ("text", "list", "box", "choice", "link", "form", "find"),
    3: tuple(KINDS),
}
"""Level -> the kinds that it draws from."""
