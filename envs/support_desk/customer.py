"""The scripted customer: recognizes questions by keywords, answers in templates, and decides when it leaves."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from envs.support_desk.cases import Case, Topic
from envs.support_desk.policy import Reason

MAX_LENGTH = 500
"""Longer texts are not understood, in characters."""

WORDINGS = ("I want to", "I'd like to", "Please help me to")
NOT_UNDERSTOOD = "Sorry, I don't understand."
WHY_NOT = "Why not?"
PLEA = "Please, can't you make an exception?"
ACCEPTS = "I see. Goodbye."
THANKS = "Thank you. Goodbye."


def _patterns(**forms: str) -> dict[str, re.Pattern[str]]:
    return {name: re.compile(form) for name, form in forms.items()}


_ASKS = re.compile(r"\?|^(?:please )?(?:tell|give|send|confirm|provide|state|share|i need|may i have)\b")
_TOPICS = _patterns(
    name=r"\bnames?\b|\bwho are you",
    email=r"\be-?mail",
    zip=r"\bzip|\bpost(?:al)? ?code",
    order=r"\border (?:number|id|no)\b|\b(?:which|what)(?: is| was)?(?: the| your)? order|\bnumber of\b",
    item=r"\bitems?\b|\bproducts?\b|\b(?:which|what) (?:one|thing|article)",
    new=r"\binstead\b|\b(?:exchange|swap|change) (?:it )?for\b|\breplacement|\bin return\b|\bcolou?r\b|\bfor what\b",
    payment=r"\bpayment|\bpay\b|\bpaid\b|\brefund(?:ed)? (?:to|it)\b|\bhow .*\brefund",
    address=r"\baddress(?!es)|\bwhere .*(?:send|sent|ship|deliver)",
)
_REQUEST = re.compile(
    r"\bhow (?:can|may|could) (?:i|we)\b|\bwhat (?:can|may) i do\b|\bwhat (?:do|would) you (?:want|like|need)\b"
    r"|\bwhat is (?:the|your) (?:problem|issue|request)\b|\bhelp you\b|^(?:hi|hello|good (?:morning|day))\b"
)
_REFUSES = re.compile(
    r"\b(?:can ?not|can ?'?t|won'?t|will not|unable|not (?:possible|allowed|able|permitted)|impossible|refuse[sd]?"
    r"|declined?|against|forbid(?:s|den)?|sorry)\b"
)
_REASONS = _patterns(
    identity=r"\bidentity\b|\bverif|\bzip\b.*\bmatch|\bmatch",
    owner=r"\bowner\b|\bnot your|\bisn'?t your|\bn[o']t belong|\bsomeone else|\b(?:an)?other (?:customer|account)",
    shipped=r"\bshipped\b|\bshipping\b|\bon its way\b|\balready (?:sent|delivered)",
    late=r"\blate\b|\b30 days|\bthirty days|\btoo long ago",
    final_sale=r"\bfinal[ _]sale",
    payment=r"\bpayment\b|\bpaid\b",
    product=r"\bproducts?\b",
    stock=r"\bstock\b|\bsold out\b",
)
_DONE = re.compile(
    r"\b(?:done|cancel+ed|refunded|returned|taken back|exchanged|changed|updated|solved|completed|all set|sorted)\b"
)


class Reply(NamedTuple):
    """The customer's words, whether it understood the agent, and whether it leaves."""

    text: str
    understood: bool = True
    done: bool = False


@dataclass
class Customer:
    """The customer of a case.

    disclosed: the topics that it has mentioned.
    refused: the reasons of the last refusal that stated one, or None.
    pleas: number of pleas so far.
    """

    case: Case
    disclosed: set[Topic]
    refused: frozenset[Reason] | None = None
    pleas: int = 0

    def opening(self) -> str:
        """Return the first message: the request and the disclosed details."""
        known = [f"my {topic} is {_say(self.case, topic)}" for topic in ("email", "zip") if topic in self.disclosed]
        identity = " and ".join(known)
        return f"{self._request()} {identity[0].upper()}{identity[1:]}." if known else self._request()

    def hear(self, text: str) -> Reply:
        """Return the reply to any text of the agent."""
        heard = " ".join(text.lower().split()) if len(text) <= MAX_LENGTH else ""
        asks = _ASKS.search(heard) is not None
        if asks and (answer := self._answer(heard)):
            return Reply(answer)
        if _REFUSES.search(heard):
            return self._take_refusal(heard)
        if _DONE.search(heard):
            return Reply(THANKS, done=True)
        answer = self._answer(heard)
        return Reply(answer) if answer else Reply(NOT_UNDERSTOOD, understood=False)

    def _answer(self, heard: str) -> str:
        """Return the answers to all recognized questions, or "" if there is none."""
        asked = [topic for topic, form in _TOPICS.items() if form.search(heard)]
        self.disclosed.update(asked)  # type: ignore[arg-type]
        answers = [_ANSWERS[topic](self.case) for topic in asked]
        if not answers and _REQUEST.search(heard):
            answers = [self._request()]
        return " ".join(answers)

    def _take_refusal(self, heard: str) -> Reply:
        stated = frozenset(reason for reason, form in _REASONS.items() if form.search(heard))
        if stated:
            self.refused = stated  # type: ignore[assignment]
        if not self.refused:
            return Reply(WHY_NOT)
        if self.pleas < self.case.pushes:
            self.pleas += 1
            return Reply(PLEA)
        return Reply(ACCEPTS, done=True)

    def _request(self) -> str:
        """Return the request with the details disclosed so far."""
        case, disclosed, request = self.case, self.disclosed, self.case.request
        item = f"the {request.item}" if "item" in disclosed else "an item"
        if "order" in disclosed and case.knows_order:
            order = f"order {request.order}"
        else:
            order = "an order" if request.kind in ("cancel", "address") or "item" not in disclosed else "my order"
        payment = f" and be paid by {request.payment}" if "payment" in disclosed and request.payment else ""
        new = f"a {request.new}" if "new" in disclosed else "another"
        address = request.address if "address" in disclosed else "another address"
        wishes = {
            "cancel": f"cancel {order}",
            "return": f"return {item} of {order}{payment}",
            "exchange": f"exchange {item} of {order} for {new}",
            "address": f"have {order} sent to {address}",
        }
        return f"{WORDINGS[case.wording]} {wishes[request.kind]}."


def _say(case: Case, topic: str) -> str:
    return case.customer.email if topic == "email" else case.zip


def _tell_order(case: Case) -> str:
    if case.knows_order:
        return f"It is order {case.request.order}."
    return f"I don't know its number. There is a {case.hint} in it."


def _tell_item(case: Case) -> str:
    return f"The {case.request.item}." if case.request.item else f"The whole order, with the {case.hint}."


def _tell_new(case: Case) -> str:
    return f"I want a {case.request.new}." if case.request.new else "I don't want anything else."


def _tell_payment(case: Case) -> str:
    return f"Pay me by {case.request.payment}." if case.request.payment else "Leave it as it is."


def _tell_address(case: Case) -> str:
    return f"To {case.request.address}." if case.request.address else "My address stays."


_ANSWERS: Mapping[str, Callable[[Case], str]] = {
    "name": lambda case: f"My name is {case.customer.name}.",
    "email": lambda case: f"My email is {case.customer.email}.",
    "zip": lambda case: f"My zip is {case.zip}.",
    "order": _tell_order,
    "item": _tell_item,
    "new": _tell_new,
    "payment": _tell_payment,
    "address": _tell_address,
}
