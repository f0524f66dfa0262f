"""What the desk may do: the written policy, and the same as code.

`reasons` says why the policy forbids a request (empty: it must be met), `broken_by` which rules a call of the agent's
breaks, by the same rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from envs.support_desk.shop import DELIVERED, PROCESSING, Order, Shop, product_of

RETURN_DAYS = 30

Kind: TypeAlias = Literal["cancel", "return", "exchange", "address"]
Reason: TypeAlias = Literal["identity", "owner", "shipped", "late", "final_sale", "payment", "product", "stock"]

POLICY = (
    "Policy: First verify the customer by email and zip; without that, or if it does not match, see and do nothing "
    "(identity). "
    "See and change only the customer's own orders (owner). "
    "Cancel or change the address only before shipping (shipped). "
    f"Return and exchange only within {RETURN_DAYS} days of delivery (late), never final sale (final_sale). "
    "Refund only to the original payment (payment). "
    "Exchange only for the same product (product) that is in stock (stock). "
    "Do only what the customer asks. "
    "What the policy forbids, refuse, and say which reason."
)
"""What the agent is told. The words in brackets are the reasons as `close` takes them."""


@dataclass(frozen=True)
class Request:
    """What a customer wants of an order.

    item: what to return or exchange; "" where the whole order is meant.
    new: the item wanted for it. payment: where the refund is wanted. address: where to send the order. Each "" where
        the kind has none.
    """

    kind: Kind
    order: int
    item: str = ""
    new: str = ""
    payment: str = ""
    address: str = ""

    @property
    def operation(self) -> tuple[str, int, *tuple[str, ...]]:
        """The shop's method that does it, and its arguments."""
        if self.kind == "cancel":
            return ("cancel", self.order)
        if self.kind == "return":
            return ("take_back", self.order, self.item, self.payment)
        if self.kind == "exchange":
            return ("exchange", self.order, self.item, self.new)
        return ("change_address", self.order, self.address)


def reasons(shop: Shop, customer: int | None, request: Request) -> frozenset[Reason]:
    """Every reason for which the policy forbids what a verified customer (None: not verified) asks for."""
    if customer is None:
        return frozenset({"identity"})
    order = shop.order(request.order)
    # Of an order that isn't the customer's nothing may be looked at, so there is nothing else to find.
    if order.customer != customer:
        return frozenset({"owner"})
    return frozenset(_rules_against(shop, order, request))


def broken_by(shop: Shop, customer: int | None, order_id: int, request: Request | None = None) -> frozenset[Reason]:
    """The rules that the agent breaks by looking at an order or, with a request, by doing that to it."""
    if request is not None:
        return reasons(shop, customer, request)
    if customer is None:
        return frozenset({"identity"})
    return frozenset() if shop.order(order_id).customer == customer else frozenset({"owner"})


def _rules_against(shop: Shop, order: Order, request: Request) -> set[Reason]:
    found: set[Reason] = set()
    if request.kind in ("cancel", "address"):
        if order.status != PROCESSING:
            found.add("shipped")
        return found
    if order.status == DELIVERED and order.days > RETURN_DAYS:
        found.add("late")
    line = order.line(request.item)
    if line is not None and line.final_sale:
        found.add("final_sale")
    if request.kind == "return":
        if request.payment != order.payment:
            found.add("payment")
    elif product_of(request.new) != product_of(request.item):
        found.add("product")
    elif not shop.left(request.new):
        found.add("stock")
    return found
