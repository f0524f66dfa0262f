"""Cases drawn from a seed: the rows of the shop, the customer, the request and what the first message discloses."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from envs.support_desk.policy import RETURN_DAYS, Kind, Reason, Request
from envs.support_desk.records import DELIVERED, PAYMENTS, PROCESSING, SHIPPED, Customer, Line, Order, Stock, product_of

Topic: TypeAlias = Literal["name", "email", "zip", "order", "item", "new", "payment", "address"]
"""Details that the agent can ask a customer for."""

KINDS: tuple[Kind, ...] = get_args(Kind)
LEVELS = range(1, 4)
FORBIDDEN = 0.35
"""Probability that the policy forbids the request."""
DISCLOSED = 0.5
"""Probability, above level 1, that the first message discloses a detail that the desk needs."""
NUMBER_FORGOTTEN = 0.4
PUSHY = 0.5

NEEDED: Mapping[Kind, tuple[Topic, ...]] = {
    "cancel": ("email", "zip", "order"),
    "return": ("email", "zip", "order", "item"),
    "exchange": ("email", "zip", "order", "item", "new"),
    "address": ("email", "zip", "order", "address"),
}
"""Details that the desk needs for a request."""
FORBIDDEN_BY: Mapping[Kind, tuple[Reason, ...]] = {
    "cancel": ("identity", "owner", "shipped"),
    "return": ("identity", "owner", "late", "final_sale", "payment"),
    "exchange": ("identity", "owner", "late", "final_sale", "product", "stock"),
    "address": ("identity", "owner", "shipped"),
}

FIRST_NAMES = (
    "ann", "ben", "carl", "dora", "emma", "finn", "gina", "hugo", "ida", "jack", "kim", "leo", "mary", "nick", "olga",
    "paul", "rosa", "sam", "tina", "vera",
)  # fmt: skip
LAST_NAMES = (
    "adams", "baker", "clark", "davis", "evans", "fox", "green", "hall", "jones", "king", "lee", "moore", "nash",
    "park", "reed", "stone", "turner", "ward", "wood", "young",
)  # fmt: skip
PRICES = {"bag": 35, "chair": 90, "clock": 20, "jacket": 75, "lamp": 40, "mug": 8, "shirt": 25, "vase": 15}
COLOURS = ("black", "blue", "green", "red", "white")
ITEMS = tuple(f"{colour} {product}" for product in PRICES for colour in COLOURS)
STREETS = ("Bay Road", "Elm Street", "Hill Road", "Lake Road", "Main Street", "Mill Lane", "Oak Street", "Park Lane")
CUSTOMERS = 4
ORDERS_EACH = 2
STATUSES = (PROCESSING, SHIPPED, DELIVERED)
LONGEST_AGO = 90


@dataclass(frozen=True)
class Case:
    """One customer's case.

    customer: the customer that the writer claims to be.
    zip: the zip code that they state.
    hint: an item of the order, which identifies it if the customer has forgotten its number.
    reasons: why the policy forbids the request; empty if it must be met.
    disclosed: details in the first message.
    knows_order: whether the customer knows the number of the order.
    pushes: number of refusals that the customer answers with a plea.
    """

    stock: Stock
    customer: Customer
    zip: str
    request: Request
    hint: str
    reasons: frozenset[Reason]
    disclosed: frozenset[Topic]
    knows_order: bool
    pushes: int
    wording: int


def draw_case(seed: int, kinds: Collection[Kind], level: int) -> Case:
    """Return the case of a seed. Exactly one rule forbids a forbidden request, and none any other."""
    rng = random.Random(seed)
    kind = rng.choice(sorted(kinds))
    twist = rng.choice(FORBIDDEN_BY[kind]) if rng.random() < FORBIDDEN else None
    customers = _draw_customers(rng)
    numbers = rng.sample(range(100, 1000), CUSTOMERS * ORDERS_EACH)
    stock = dict(zip(ITEMS, rng.choices(range(1, 10), k=len(ITEMS)), strict=True))
    items = {customer.id: rng.sample(ITEMS, 2 * ORDERS_EACH) for customer in customers}

    speaker = customers[0]
    orders = []
    for customer in customers:
        for i in range(ORDERS_EACH):
            held = items[customer.id][2 * i : 2 * i + rng.randrange(1, 3)]
            orders.append(_draw_order(rng, numbers.pop(), customer.id, held))
    which = rng.randrange(ORDERS_EACH) + (ORDERS_EACH if twist == "owner" else 0)
    order = orders[which] = _fit_order(rng, orders[which], kind, twist)
    item = order.lines[0].item
    request = _draw_request(rng, kind, twist, order, stock)

    disclosed = {topic for topic in NEEDED[kind] if level == 1 or rng.random() < DISCLOSED}
    if twist == "payment" or (kind == "return" and rng.random() < 0.5):
        disclosed.add("payment")  # a forbidden wish is always disclosed
    forgotten = level > 2 and twist != "owner" and rng.random() < NUMBER_FORGOTTEN
    if forgotten:
        disclosed.discard("order")
    shuffled = list(orders)
    rng.shuffle(shuffled)
    return Case(
        stock=Stock(tuple(customers), tuple(shuffled), PRICES, stock),
        customer=speaker,
        zip=_other_zip(rng, speaker.zip) if twist == "identity" else speaker.zip,
        request=request,
        hint=item,
        reasons=frozenset() if twist is None else frozenset({twist}),
        disclosed=frozenset(disclosed),
        knows_order=not forgotten,
        pushes=int(level > 2 and rng.random() < PUSHY),
        wording=rng.randrange(3),
    )


def _draw_customers(rng: random.Random) -> list[Customer]:
    firsts, lasts = rng.sample(FIRST_NAMES, CUSTOMERS), rng.sample(LAST_NAMES, CUSTOMERS)
    return [
        Customer(i + 1, f"{first.title()} {last.title()}", f"{first}.{last}@mail.com", _draw_zip(rng))
        for i, (first, last) in enumerate(zip(firsts, lasts, strict=True))
    ]


def _draw_zip(rng: random.Random) -> str:
    return str(rng.randrange(1000, 10000))


def _other_zip(rng: random.Random, zip_code: str) -> str:
    while (other := _draw_zip(rng)) == zip_code:
        pass
    return other


def _draw_order(rng: random.Random, number: int, customer: int, items: list[str]) -> Order:
    return Order(
        id=number,
        customer=customer,
        status=rng.choice(STATUSES),
        days=rng.randrange(1, LONGEST_AGO),
        payment=rng.choice(PAYMENTS),
        address=_draw_address(rng),
        lines=tuple(Line(item, rng.random() < 0.2) for item in items),
    )


def _draw_address(rng: random.Random) -> str:
    return f"{rng.randrange(1, 100)} {rng.choice(STREETS)}"


def _fit_order(rng: random.Random, order: Order, kind: Kind, twist: Reason | None) -> Order:
    """Return the order changed so that the request is allowed, or forbidden for exactly this reason."""
    status, days = order.status, order.days
    if kind in ("cancel", "address"):
        status = rng.choice((SHIPPED, DELIVERED)) if twist == "shipped" else PROCESSING
        days = rng.randrange(1, RETURN_DAYS + 1)
    else:
        status = DELIVERED
        days = rng.randrange(RETURN_DAYS + 1, LONGEST_AGO) if twist == "late" else rng.randrange(1, RETURN_DAYS + 1)
    first = Line(order.lines[0].item, twist == "final_sale")
    return Order(order.id, order.customer, status, days, order.payment, order.address, (first, *order.lines[1:]))


def _draw_request(rng: random.Random, kind: Kind, twist: Reason | None, order: Order, stock: dict[str, int]) -> Request:
    item = order.lines[0].item
    if kind == "cancel":
        return Request(kind, order.id)
    if kind == "address":
        while (address := _draw_address(rng)) == order.address:
            pass
        return Request(kind, order.id, address=address)
    if kind == "return":
        others = [payment for payment in PAYMENTS if payment != order.payment]
        return Request(kind, order.id, item, payment=rng.choice(others) if twist == "payment" else order.payment)
    held = {line.item for line in order.lines}
    alike = twist != "product"
    new = rng.choice(
        [other for other in ITEMS if other not in held and (product_of(other) == product_of(item)) == alike]
    )
    if twist == "stock":
        stock[new] = 0
    return Request(kind, order.id, item, new=new)
