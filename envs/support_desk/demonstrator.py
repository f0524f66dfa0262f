"""The scripted agent of the desk: between anything that might be done and what serves the case best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from envs.base import PRIVILEGED
from envs.support_desk.cases import LEVELS, NEEDED, Case, Topic
from envs.support_desk.game import Observe
from envs.support_desk.policy import Kind, Request
from envs.support_desk.shop import product_of
from envs.support_desk.tools import DONE, RESULTS
from envs.toolkit.mixed_demonstrator import MixedDemonstrator
from envs.toolkit.tool_calls import write_call

QUESTIONS: Mapping[str, str] = {
    "email": "What is your email?",
    "zip": "What is your zip?",
    "order": "What is the order number?",
    "item": "Which item?",
    "new": "What do you want instead?",
    "address": "To which address?",
}
IDENTITY = "What are your email and zip?"


class SupportDeskDemonstrator(MixedDemonstrator):
    """Plays `SupportDesk`: with probability `skill` a turn what serves the case best, else anything that it could do.

    It knows the case, and so need not work out whether the request is allowed; but it asks, verifies and looks before
    it acts, as one who doesn't know must. What it does at random goes by what the customer has told: a question, a call
    with what is known, or closing the case with any result.
    """

    def __init__(
        self,
        *,
        skill: float,
        tasks: Sequence[Kind] | None = None,
        level: int = LEVELS[-1],
        observe: Observe = "full",
        cases: int | None = None,
    ) -> None:
        del tasks, level, observe, cases  # It takes what the environment takes, and reads the case of each episode.
        super().__init__(skill=skill)

    def best_actions(self) -> list[str]:
        return [best_action(self.state)]

    def _look(self, info: Mapping[str, Any]) -> None:
        self.state = info[PRIVILEGED]
        self._valid = possible_actions(self.state["case"], self.state["told"])


def best_action(state: Mapping[str, Any]) -> str:
    """The next thing to do for a case, from what is known so far."""
    case: Case = state["case"]
    request, told = case.request, state["told"]
    missing = [topic for topic in NEEDED[request.kind] if topic not in told]
    if {"email", "zip"} <= set(missing):
        return IDENTITY
    if not state["verified"]:
        unknown: list[Topic] = [topic for topic in missing if topic in ("email", "zip")]
        if unknown:
            return QUESTIONS[unknown[0]]
        return write_call("close", result="identity") if state["checks"] else _verify(case)
    if missing:
        return QUESTIONS[missing[0]]
    if "owner" not in case.reasons and request.order not in state["seen"]:
        return write_call("order", order=_order_to_see(case, state["seen"]))
    if request.kind == "exchange" and product_of(request.new) not in state["looked_up"]:
        return write_call("product", product=product_of(request.new))
    if case.reasons:
        return write_call("close", result=min(case.reasons))
    return call_for(request) if request not in state["changes"] else write_call("close", result=DONE)


def possible_actions(case: Case, told: frozenset[Topic]) -> list[str]:
    """What could be done by one who knows what was told so far: sensible or not."""
    request = case.request
    found = [IDENTITY, *QUESTIONS.values(), *(write_call("close", result=result) for result in RESULTS)]
    if {"email", "zip"} <= told:
        found.append(_verify(case))
    if "order" in told and case.knows_order:
        found.append(write_call("order", order=request.order))
        if told.issuperset(NEEDED[request.kind]):
            found.append(call_for(request))
    if "new" in told and request.new:
        found.append(write_call("product", product=product_of(request.new)))
    return found


def _order_to_see(case: Case, seen: frozenset[int]) -> int:
    """The order itself where its number is known, else the first of the customer's that was not looked at."""
    if case.knows_order:
        return case.request.order
    own = sorted(order.id for order in case.stock.orders if order.customer == case.customer.id)
    return next(number for number in own if number not in seen)


def _verify(case: Case) -> str:
    return write_call("verify", email=case.customer.email, zip=case.zip)


def call_for(request: Request) -> str:
    """The call that does what is requested."""
    if request.kind == "cancel":
        return write_call("cancel", order=request.order)
    if request.kind == "return":
        return write_call("return", order=request.order, item=request.item, payment=request.payment)
    if request.kind == "exchange":
        return write_call("exchange", order=request.order, item=request.item, new=request.new)
    return write_call("address", order=request.order, address=request.address)
