"""The policy of the desk, as text and as code.

`reasons` returns why the policy forbids a request; without a reason, the request must be met. `broken_by` returns the
rules that a call of the agent breaks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from envs.support_desk.records import DELIVERED, PROCESSING, Order, product_of
from envs.support_desk.shop import Shop

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
"""The text that the agent reads. The words in brackets are the reasons that `close` accepts."""


@dataclass(frozen=True)
class Request:
    """What a customer asks for.

    item: item to return or exchange; "" for the whole order.
    new: item to receive for it.
    payment: where the refund goes.
    address: where to send the order.

    The last three are "" for kinds that do not use them.
    """

    kind: Kind
    order: int
    item: str = ""
    new: str = ""
    payment: str = ""
    address: str = ""

    @property
    def operation(self) -> tuple[str, int, *tuple[str, ...]]:
        """The method of `Shop` that does it, and its arguments."""
        if self.kind == "cancel":
            return ("cancel", self.order)
        if self.kind == "return":
            return ("take_back", self.order, self.item, self.payment)
        if self.kind == "exchange":
            return ("exchange", self.order, self.item, self.new)
        return ("change_address", self.order, self.address)


def reasons(shop: Shop, customer: int | None, request: Request) -> frozenset[Reason]:
    """Return all reasons for which the policy forbids a request. `customer` is None if not verified."""
    if customer is None:
        return frozenset({"identity"})
    order = shop.order(request.order)
    # The agent must not look at another customer's order, so no other reason can apply.
    if order.customer != customer:
        return frozenset({"owner"})
    return frozenset(_rules_against(shop, order, request))


def broken_by(shop: Shop, customer: int | None, order_id: int, request: Request | None = None) -> frozenset[Reason]:
    """Return the rules that the agent breaks by looking at an order or, with a request, by doing it."""
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
