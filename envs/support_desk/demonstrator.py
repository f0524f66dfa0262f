"""The scripted agent of the desk: plays the best action for the case, or any possible one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from envs.base import PRIVILEGED
from envs.support_desk.cases import LEVELS, NEEDED, Case, Topic
from envs.support_desk.game import Observe
from envs.support_desk.policy import Kind, Request
from envs.support_desk.records import product_of
from envs.support_desk.tools import DONE, RESULTS
from envs.toolkit.mixed_demonstrator import MixedDemonstrator
from envs.toolkit.tool_calls import CallForm, write_call

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
    """Plays `SupportDesk`: the best action for the case with probability `skill`, else any possible action.

    It knows the case and therefore whether the request is allowed, but it asks, verifies and looks up before it acts,
    as an agent without this knowledge must. Its random actions use what the customer has disclosed: a question, a call
    with known values, or closing the case with any result.
    """

    def __init__(
        self,
        *,
        skill: float,
        tasks: Sequence[Kind] | None = None,
        level: int = LEVELS[-1],
        observe: Observe = "full",
        cases: int | None = None,
        calls: CallForm = "json",
    ) -> None:
        del tasks, level, observe, cases, calls  # arguments of the environment; `info` holds the case
        super().__init__(skill=skill)

    def best_actions(self) -> list[str]:
        return [best_action(self.state)]

    def _look(self, info: Mapping[str, Any]) -> None:
        self.state = info[PRIVILEGED]
        self._valid = possible_actions(self.state["case"], self.state["disclosed"])


def best_action(state: Mapping[str, Any]) -> str:
    """Return the best next action for a case, given what is known so far."""
    case: Case = state["case"]
    request, disclosed = case.request, state["disclosed"]
    missing = [topic for topic in NEEDED[request.kind] if topic not in disclosed]
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


def possible_actions(case: Case, disclosed: frozenset[Topic]) -> list[str]:
    """Return the actions, sensible or not, that are possible with what the customer has disclosed."""
    request = case.request
    found = [IDENTITY, *QUESTIONS.values(), *(write_call("close", result=result) for result in RESULTS)]
    if {"email", "zip"} <= disclosed:
        found.append(_verify(case))
    if "order" in disclosed and case.knows_order:
        found.append(write_call("order", order=request.order))
        if disclosed.issuperset(NEEDED[request.kind]):
            found.append(call_for(request))
    if "new" in disclosed and request.new:
        found.append(write_call("product", product=product_of(request.new)))
    return found


def _order_to_see(case: Case, seen: frozenset[int]) -> int:
    """Return the order itself if its number is known, else the customer's first order that was not looked at."""
    if case.knows_order:
        return case.request.order
    own = sorted(order.id for order in case.stock.orders if order.customer == case.customer.id)
    return next(number for number in own if number not in seen)


def _verify(case: Case) -> str:
    return write_call("verify", email=case.customer.email, zip=case.zip)


def call_for(request: Request) -> str:
    """Return the call that does a request."""
    if request.kind == "cancel":
        return write_call("cancel", order=request.order)
    if request.kind == "return":
        return write_call("return", order=request.order, item=request.item, payment=request.payment)
    if request.kind == "exchange":
        return write_call("exchange", order=request.order, item=request.item, new=request.new)
    return write_call("address", order=request.order, address=request.address)
