"""The tools, as they are declared to the agent."""

from __future__ import annotations

from typing import get_args

from envs.support_desk.policy import Reason
from envs.support_desk.records import PAYMENTS
from envs.toolkit.tool_calls import Parameter, Tool, Toolbox

DONE = "done"
RESULTS: tuple[str, ...] = (DONE, *get_args(Reason))

_ORDER = Parameter("Number of the order.", "integer")
_ITEM = Parameter('An item of the order, such as "blue mug".', max_length=40)

TOOLS = Toolbox(
    (
        Tool(
            "verify",
            "Check a customer's identity; answers the customer's orders.",
            {
                "email": Parameter("The customer's email."),
                "zip": Parameter("The customer's zip.", max_length=10),
            },
        ),
        Tool("order", "Look at an order.", {"order": _ORDER}),
        Tool(
            "product",
            "Look up price and stock of a product in all its colours.",
            {"product": Parameter('The product, such as "mug".', max_length=40)},
        ),
        Tool("cancel", "Cancel an order and refund it.", {"order": _ORDER}),
        Tool(
            "return",
            "Take an item back and refund it.",
            {"order": _ORDER, "item": _ITEM, "payment": Parameter("How to refund it.", choices=PAYMENTS)},
        ),
        Tool(
            "exchange",
            "Exchange an item for another one.",
            {"order": _ORDER, "item": _ITEM, "new": Parameter("The item to send for it.", max_length=40)},
        ),
        Tool(
            "address",
            "Change the address of an order.",
            {"order": _ORDER, "address": Parameter("The new address.", max_length=60)},
        ),
        Tool(
            "close",
            "Close the case, as done or with the reason why the request was refused.",
            {"result": Parameter("How the case ends.", choices=RESULTS)},
        ),
    )
)
