"""The environment `SupportDesk`: the agent writes to a customer in plain text and works on the shop's database by tool
calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from envs.base import INVALID_ACTION, PRIVILEGED, SUCCESS, TASK_ID, EnvSpec, Info, Step
from envs.errors import EnvStateError
from envs.support_desk.cases import KINDS, LEVELS, Case, draw_case
from envs.support_desk.customer import Customer
from envs.support_desk.policy import POLICY, Kind, Reason, Request, broken_by
from envs.support_desk.shop import Shop, describe_order
from envs.support_desk.tools import DONE, TOOLS
from envs.toolkit.argument_checks import check_count, check_one_of, choose_several, refuse_options
from envs.toolkit.tool_calls import CallForm, ToolError, is_call

Observe: TypeAlias = Literal["full", "brief"]

MAX_TURNS = 20
INVALID_COST = 0.02

NO_MATCH = "No match."
OK = "Done."
SOLVED = "Case closed: solved."
FAILED = "Case closed: not solved."


class SupportDesk:
    """Meet a customer's request, or refuse it if the policy forbids it: 1 for a solved case, else 0.

    A case is solved if, at its end, the database is as the request demands (unchanged if refused), no call broke the
    policy, and a forbidden request was refused for a true reason. It ends when the agent closes it, or when the
    customer leaves because the request is done or refused with a reason. A call that cannot be done costs 0.02.

    tasks: kinds of requests, of "cancel", "return", "exchange" and "address"; None for all.
    level: how much the customer withholds. 1: nothing; 2: some of the needed details, until asked; 3: may also not know
        the number of the order, and may plead after a refusal.
    observe: "full" gives policy and tools with the first message; "brief" gives the message alone, for a policy that
        knows them.
    cases: number of distinct cases (seed modulo cases), which a policy can memorize; None draws one case per seed.
    calls: how the policy writes calls; "native" leaves the description of the tools to the chat template.
    """

    spec: ClassVar[EnvSpec] = EnvSpec(
        id="support_desk",
        description="Serve a shop's customer by calls of tools and by the policy of the desk.",
        max_turns=MAX_TURNS,
        reward_range=(-MAX_TURNS * INVALID_COST, 1.0),
        tools=TOOLS.schemas,
    )

    def __init__(
        self,
        *,
        tasks: Sequence[Kind] | None = None,
        level: int = LEVELS[-1],
        observe: Observe = "full",
        cases: int | None = None,
        calls: CallForm = "json",
    ) -> None:
        self.tasks = choose_several(self.spec.id, "tasks", tasks, KINDS)
        check_one_of(self.spec.id, "level", level, LEVELS)
        check_one_of(self.spec.id, "observe", observe, get_args(Observe))
        check_count(self.spec.id, "cases", cases)
        check_one_of(self.spec.id, "calls", calls, get_args(CallForm))
        self.level = level
        self.observe = observe
        self.cases = cases
        self._tools = TOOLS.written(calls)
        self._shop: Shop | None = None
        self._case: Case | None = None
        self._calls: dict[str, Callable[..., str]] = {
            "verify": self._verify,
            "order": self._order,
            "product": self._product,
            "cancel": lambda order: self._change(Request("cancel", order)),
            "return": lambda order, item, payment: self._change(Request("return", order, item, payment=payment)),
            "exchange": lambda order, item, new: self._change(Request("exchange", order, item, new=new)),
            "address": lambda order, address: self._change(Request("address", order, address=address)),
            "close": self._close_case,
        }

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[str, Info]:
        """Draw the case of `seed`. Raises EnvArgumentError for any option, because there are none."""
        refuse_options(self.spec.id, options)
        number = seed if self.cases is None else seed % self.cases
        case = self._case = draw_case(number, self.tasks, self.level)
        self._shop = self._shop or Shop()
        self._shop.fill(case.stock)
        self._goal = self._shop.snapshot() if case.reasons else self._shop.snapshot_after(*case.request.operation)
        self._customer = Customer(case, set(case.disclosed))
        self._verified: int | None = None
        self._checks = 0
        self._seen: frozenset[int] = frozenset()
        self._looked_up: frozenset[str] = frozenset()
        self._broken: frozenset[Reason] = frozenset()
        self._changes: tuple[Request, ...] = ()
        self._result: str | None = None
        opening = f"Customer: {self._customer.opening()}"
        first = (
            opening if self.observe == "brief" else " ".join(filter(None, (POLICY, self._tools.describe(), opening)))
        )
        return first, self._info() | {TASK_ID: f"{case.request.kind}-{number}"}

    def step(self, action: str) -> Step:
        """Do a tool call if the action begins with a bracket, else say it to the customer."""
        if self._case is None:
            raise EnvStateError(f"step of {self.spec.id}: the episode has not begun: call reset first")
        if not is_call(action):
            reply = self._customer.hear(action)
            text = f"Customer: {reply.text}"
            if reply.done:
                return self._end(text, self._customer.refused or frozenset())
            return text, 0.0, False, False, self._info() | {INVALID_ACTION: not reply.understood}
        try:
            tool, args = self._tools.read(action)
            answer = self._calls[tool](**args)
        except ToolError as error:
            return f"Error: {error}.", -INVALID_COST, False, False, self._info() | {INVALID_ACTION: True}
        if self._result is not None:
            return self._end("", frozenset() if self._result == DONE else frozenset({self._result}))
        return answer, 0.0, False, False, self._info()

    def close(self) -> None:
        self._case = None
        if self._shop is not None:
            self._shop.close()
            self._shop = None

    def _end(self, text: str, refused: frozenset[str]) -> Step:
        assert self._case is not None
        assert self._shop is not None
        reasons = self._case.reasons
        answered = bool(refused) and refused <= reasons if reasons else not refused
        kept = self._checks > 0 and not self._broken  # the policy demands verification before a refusal too
        solved = answered and kept and self._shop.snapshot() == self._goal
        verdict = SOLVED if solved else FAILED
        info = self._info() | {SUCCESS: solved}
        return f"{text} {verdict}".lstrip(), float(solved), True, False, info

    def _verify(self, email: str, zip: str) -> str:
        assert self._shop is not None
        self._checks += 1
        customer = self._shop.find_customer(email, zip)
        if customer is None:
            return NO_MATCH
        self._verified = customer.id
        orders = ", ".join(map(str, self._shop.orders_of(customer.id)))
        return f"Verified: {customer.name}. Orders: {orders}."

    def _order(self, order: int) -> str:
        assert self._shop is not None
        found = self._shop.order(order)
        self._broken |= broken_by(self._shop, self._verified, order)
        self._seen |= {order}
        return describe_order(found)

    def _product(self, product: str) -> str:
        assert self._shop is not None
        price, variants = self._shop.stock(product)
        self._looked_up |= {product}
        colours = ", ".join(f"{left} {item.removesuffix(product).rstrip()}" for item, left in variants)
        return f"{product}, {price} dollars: {colours}."

    def _change(self, request: Request) -> str:
        """Do a request, allowed or not, and record the rules that it breaks."""
        assert self._shop is not None
        broken = broken_by(self._shop, self._verified, request.order, request)
        operation, *args = request.operation
        getattr(self._shop, operation)(*args)
        self._broken |= broken
        self._changes += (request,)
        return OK

    def _close_case(self, result: str) -> str:
        self._result = result
        return ""

    def _info(self) -> Info:
        privileged = {
            "case": self._case,
            "disclosed": frozenset(self._customer.disclosed),
            "verified": self._verified is not None,
            "checks": self._checks,
            "seen": self._seen,
            "looked_up": self._looked_up,
            "broken": self._broken,
            "changes": self._changes,
        }
        return {SUCCESS: False, INVALID_ACTION: False, PRIVILEGED: privileged}
