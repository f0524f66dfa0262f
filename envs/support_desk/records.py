"""The rows of the shop: customers, orders with their items, and stock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PROCESSING, SHIPPED, DELIVERED, CANCELLED = "processing", "shipped", "delivered", "cancelled"
KEPT, RETURNED = "kept", "returned"
PAYMENTS = ("card", "paypal", "voucher")


@dataclass(frozen=True)
class Customer:
    id: int
    name: str
    email: str
    zip: str


@dataclass(frozen=True)
class Line:
    """One item of an order, such as a "blue mug"."""

    item: str
    final_sale: bool
    status: str = KEPT


@dataclass(frozen=True)
class Order:
    """An order. `days` counts from placing, shipping or delivery, according to its status."""

    id: int
    customer: int
    status: str
    days: int
    payment: str
    address: str
    lines: tuple[Line, ...]

    def line(self, item: str) -> Line | None:
        return next((line for line in self.lines if line.item == item), None)


@dataclass(frozen=True)
class Stock:
    """All rows of the shop at the beginning of an episode.

    prices: product -> price.
    stock: item -> number left.
    """

    customers: tuple[Customer, ...]
    orders: tuple[Order, ...]
    prices: Mapping[str, int]
    stock: Mapping[str, int]


def product_of(item: str) -> str:
    """Return the product of which an item is a variant: "mug" for "blue mug"."""
    return item.rpartition(" ")[2]
