"""The shop behind the desk: an order database, SQLite in memory, and the operations of the desk.

One connection serves all episodes of an environment. An episode is one transaction that is never committed: `Shop.fill`
rolls the last one back and writes the rows of the next, so a new episode costs no more than its rows. Text from the
agent reaches SQLite as a parameter only, never as SQL.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from envs.support_desk.records import (
    CANCELLED,
    DELIVERED,
    KEPT,
    PROCESSING,
    RETURNED,
    SHIPPED,
    Customer,
    Line,
    Order,
    Stock,
    product_of,
)
from envs.toolkit.tool_calls import ToolError

SCHEMA = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, email TEXT UNIQUE, zip TEXT);
CREATE TABLE products (name TEXT PRIMARY KEY, price INTEGER);
CREATE TABLE variants (item TEXT PRIMARY KEY, product TEXT REFERENCES products, stock INTEGER CHECK (stock >= 0));
CREATE TABLE orders (
    id INTEGER PRIMARY KEY, customer INTEGER REFERENCES customers, status TEXT, days INTEGER, payment TEXT, address TEXT
);
CREATE TABLE items (
    orders INTEGER REFERENCES orders, item TEXT REFERENCES variants, final_sale INTEGER, status TEXT,
    PRIMARY KEY (orders, item)
);
CREATE TABLE refunds (orders INTEGER REFERENCES orders, item TEXT, amount INTEGER, payment TEXT);
"""
CHANGEABLE = (
    "SELECT id, status, address FROM orders ORDER BY id",
    "SELECT orders, item, status FROM items ORDER BY orders, item",
    "SELECT item, stock FROM variants ORDER BY item",
    "SELECT orders, item, amount, payment FROM refunds ORDER BY orders, item",
)
"""Queries of everything that the tools can change, so that two databases can be compared."""


class Shop:
    """The database and the operations of the desk. An operation that cannot be done raises ToolError.

    Operations do not check the policy of the desk; `envs.support_desk.policy` does.
    """

    def __init__(self) -> None:
        # An environment may be made on one thread and played on another, but never on two at once.
        self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._db.executescript(SCHEMA)

    def fill(self, stock: Stock) -> None:
        """Begin an episode with these rows."""
        db = self._db
        if db.in_transaction:
            db.execute("ROLLBACK")
        db.execute("BEGIN")
        db.executemany(
            "INSERT INTO customers VALUES (?, ?, ?, ?)", [(c.id, c.name, c.email, c.zip) for c in stock.customers]
        )
        db.executemany("INSERT INTO products VALUES (?, ?)", stock.prices.items())
        db.executemany(
            "INSERT INTO variants VALUES (?, ?, ?)", [(item, product_of(item), n) for item, n in stock.stock.items()]
        )
        db.executemany(
            "INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?)",
            [(o.id, o.customer, o.status, o.days, o.payment, o.address) for o in stock.orders],
        )
        db.executemany(
            "INSERT INTO items VALUES (?, ?, ?, ?)",
            [(o.id, line.item, line.final_sale, line.status) for o in stock.orders for line in o.lines],
        )

    def snapshot(self) -> tuple[list[Any], ...]:
        """Return all rows that an operation can change."""
        return tuple(self._db.execute(query).fetchall() for query in CHANGEABLE)

    def snapshot_after(self, operation: str, *args: Any) -> tuple[list[Any], ...]:
        """Return these rows as they would be after an operation, and undo the operation."""
        self._db.execute("SAVEPOINT before")
        getattr(self, operation)(*args)
        after = self.snapshot()
        self._db.execute("ROLLBACK TO before")
        self._db.execute("RELEASE before")
        return after

    def close(self) -> None:
        self._db.close()

    def find_customer(self, email: str, zip_code: str) -> Customer | None:
        """Return the customer with this email and zip, or None."""
        row = self._db.execute(
            "SELECT id, name, email, zip FROM customers WHERE email = ? AND zip = ?", (email.lower(), zip_code)
        ).fetchone()
        return None if row is None else Customer(*row)

    def orders_of(self, customer: int) -> list[int]:
        rows = self._db.execute("SELECT id FROM orders WHERE customer = ? ORDER BY id", (customer,))
        return [row[0] for row in rows]

    def order(self, order_id: int) -> Order:
        """Return an order. Raises ToolError if there is none."""
        row = self._db.execute(
            "SELECT id, customer, status, days, payment, address FROM orders WHERE id = ?", (order_id,)
        ).fetchone()
        if row is None:
            raise ToolError(f"no order {order_id}")
        lines = self._db.execute(
            "SELECT item, final_sale, status FROM items WHERE orders = ? ORDER BY rowid", (order_id,)
        )
        number, customer, order_status, days, payment, address = row
        held = tuple(Line(item, bool(final), status) for item, final, status in lines)
        return Order(number, customer, order_status, days, payment, address, held)

    def stock(self, product: str) -> tuple[int, list[tuple[str, int]]]:
        """Return the price of a product, and item and number left of each variant. Raises ToolError if there is
        none.
        """
        row = self._db.execute("SELECT price FROM products WHERE name = ?", (product,)).fetchone()
        if row is None:
            raise ToolError(f"no product {product[:20]!a}")
        rows = self._db.execute("SELECT item, stock FROM variants WHERE product = ? ORDER BY item", (product,))
        return row[0], rows.fetchall()

    def left(self, item: str) -> int:
        """Return the number left of an item. Raises ToolError if there is no such item."""
        row = self._db.execute("SELECT stock FROM variants WHERE item = ?", (item,)).fetchone()
        if row is None:
            raise ToolError(f"no item {item[:20]!a}")
        return int(row[0])

    def cancel(self, order_id: int) -> None:
        """Cancel an order and refund all of it to its payment."""
        order = self.order(order_id)
        if order.status == CANCELLED:
            raise ToolError(f"order {order_id} is cancelled already")
        self._db.execute("UPDATE orders SET status = ? WHERE id = ?", (CANCELLED, order_id))
        for line in order.lines:
            if line.status == KEPT:
                self._refund(order_id, line.item, order.payment)

    def change_address(self, order_id: int, address: str) -> None:
        self.order(order_id)
        self._db.execute("UPDATE orders SET address = ? WHERE id = ?", (address, order_id))

    def take_back(self, order_id: int, item: str, payment: str) -> None:
        """Take an item back and refund it to `payment`."""
        self._delivered_line(order_id, item)
        self._db.execute("UPDATE items SET status = ? WHERE orders = ? AND item = ?", (RETURNED, order_id, item))
        self._refund(order_id, item, payment)

    def exchange(self, order_id: int, item: str, new: str) -> None:
        """Exchange an item of an order for an item of the stock."""
        order = self._delivered_line(order_id, item)
        if not self.left(new):
            raise ToolError(f"{new} is out of stock")
        if order.line(new) is not None:
            raise ToolError(f"order {order_id} has a {new} already")
        self._db.execute("UPDATE items SET item = ? WHERE orders = ? AND item = ?", (new, order_id, item))
        self._db.execute("UPDATE variants SET stock = stock - 1 WHERE item = ?", (new,))
        self._db.execute("UPDATE variants SET stock = stock + 1 WHERE item = ?", (item,))

    def _delivered_line(self, order_id: int, item: str) -> Order:
        """Return the order if it was delivered with this item and the item was not returned; else raise ToolError."""
        order = self.order(order_id)
        line = order.line(item)
        if line is None:
            raise ToolError(f"order {order_id} has no {item[:20]!a}")
        if order.status != DELIVERED:
            raise ToolError(f"order {order_id} is {order.status}, not delivered")
        if line.status == RETURNED:
            raise ToolError(f"{item} is returned already")
        return order

    def _refund(self, order_id: int, item: str, payment: str) -> None:
        self._db.execute(
            "INSERT INTO refunds SELECT ?, ?, price, ? FROM variants JOIN products ON product = name WHERE item = ?",
            (order_id, item, payment, item),
        )


def describe_order(order: Order) -> str:
    """Return the text of an order for the tool's answer."""
    ago = f"{order.days} day{'' if order.days == 1 else 's'} ago"
    verb = {PROCESSING: "placed", SHIPPED: "shipped", DELIVERED: "delivered", CANCELLED: "placed"}[order.status]
    when = f"{verb} {ago}" if order.status in (SHIPPED, DELIVERED) else f"{order.status}, {verb} {ago}"
    return (
        f"Order {order.id}: {when}, paid by {order.payment}, to {order.address}. "
        f"Items: {', '.join(map(_describe_line, order.lines))}."
    )


def _describe_line(line: Line) -> str:
    notes: Sequence[str] = [*["final sale"] * line.final_sale, *["returned"] * (line.status == RETURNED)]
    return f"{line.item} ({', '.join(notes)})" if notes else line.item
