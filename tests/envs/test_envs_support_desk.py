"""The support desk: shop, policy, cases, customer and demonstrator. Rules of all environments are in
test_envs_rules.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

import envs
from envs import EnvArgumentError
from envs.support_desk import draw_case
from envs.support_desk.cases import DISCLOSED, FORBIDDEN, FORBIDDEN_BY, KINDS, NEEDED
from envs.support_desk.customer import ACCEPTS, NOT_UNDERSTOOD, PLEA, THANKS, WHY_NOT, Customer
from envs.support_desk.demonstrator import call_for
from envs.support_desk.game import FAILED, MAX_TURNS, NO_MATCH, OK, SOLVED
from envs.support_desk.policy import POLICY, RETURN_DAYS, reasons
from envs.support_desk.records import CANCELLED
from envs.support_desk.shop import Shop
from envs.support_desk.tools import RESULTS, TOOLS
from envs.toolkit.tool_calls import ToolError, write_call

CASES = [draw_case(seed, KINDS, 3) for seed in range(400)]


def find_case(kind: str, reason: str | None = None, level: int = 1, **wanted) -> int:
    """Return the first seed with such a request, allowed or forbidden for `reason`."""
    for seed in range(2000):
        case = draw_case(seed, KINDS, level)
        fits = case.request.kind == kind and case.reasons == frozenset({reason} if reason else ())
        if fits and all(getattr(case, name) == value for name, value in wanted.items()):
            return seed
    raise AssertionError(f"no {kind} with {reason}, {wanted}")


def play(seed: int, *actions: str, level: int = 1) -> list[tuple]:
    env = envs.make("support_desk", level=level, observe="brief")
    env.reset(seed=seed)
    return [env.step(action) for action in actions]


def verify(seed: int, level: int = 1) -> str:
    case = draw_case(seed, KINDS, level)
    return write_call("verify", email=case.customer.email, zip=case.zip)


def close(result: str) -> str:
    return write_call("close", result=result)


# --- whole episodes ---------------------------------------------------------------------------------------


EPISODE = [
    ("What is your email?", "Customer: My email is leo.davis@mail.com."),
    (
        '{"tool": "verify", "args": {"email": "leo.davis@mail.com", "zip": "7874"}}',
        "Verified: Leo Davis. Orders: 163, 664.",
    ),
    ("Which order?", "Customer: It is order 664."),
    ('{"tool": "order"', 'Error: not a call: write {"tool": NAME, "args": {...}}.'),
    ("Which item?", "Customer: The green lamp."),
    (
        '{"tool": "order", "args": {"order": 664}}',
        "Order 664: delivered 2 days ago, paid by voucher, to 68 Hill Road. Items: green lamp, black lamp.",
    ),
    ('{"tool": "product", "args": {"product": "mug"}}', "mug, 8 dollars: 5 black, 6 blue, 1 green, 4 red, 2 white."),
    ('{"tool": "return", "args": {"order": 664, "item": "green lamp", "payment": "voucher"}}', "Done."),
    ('{"tool": "close", "args": {"result": "done"}}', "Case closed: solved."),
]


def test_an_episode_word_for_word():
    env = envs.make("support_desk", level=2, observe="brief")
    observation, info = env.reset(seed=17)
    assert observation == "Customer: I'd like to return an item of an order. My zip is 7874."
    assert info["task_id"] == "return-17"
    steps = [env.step(action) for action, _ in EPISODE]
    assert [step[0] for step in steps] == [answer for _, answer in EPISODE]
    assert [step[1] for step in steps] == [0.0, 0.0, 0.0, -0.02, 0.0, 0.0, 0.0, 0.0, 1.0]
    assert [step[2] for step in steps] == [False] * 8 + [True]
    assert [step[4]["success"] for step in steps] == [False] * 8 + [True]


@pytest.mark.parametrize("kind", KINDS)
def test_an_allowed_request_is_met(kind):
    seed = find_case(kind)
    case = draw_case(seed, KINDS, 1)
    steps = play(
        seed, verify(seed), write_call("order", order=case.request.order), call_for(case.request), close("done")
    )
    assert steps[0][0].startswith(f"Verified: {case.customer.name}. Orders: ")
    assert steps[1][0].startswith(f"Order {case.request.order}: ")
    assert steps[2][0] == OK
    assert steps[3][:4] == (SOLVED, 1.0, True, False)
    assert [step[4]["success"] for step in steps] == [False, False, False, True]


@pytest.mark.parametrize(("kind", "reason"), [(kind, reason) for kind in KINDS for reason in FORBIDDEN_BY[kind]])
def test_a_forbidden_request_is_refused_with_the_reason_or_not_at_all(kind, reason):
    seed = find_case(kind, reason)
    case = draw_case(seed, KINDS, 1)
    for result in RESULTS:
        ending = play(seed, verify(seed), close(result))[-1]
        assert ending[0] == (SOLVED if result == reason else FAILED)
        assert ending[1] == float(result == reason)
    met = play(seed, verify(seed), call_for(case.request), close("done"))[-1]
    assert met[:3] == (FAILED, 0.0, True)
    # A refusal does not undo a change; only an item that is out of stock cannot be exchanged at all.
    refused_late = play(seed, verify(seed), call_for(case.request), close(reason))[-1]
    assert refused_late[1] == float(reason == "stock")


def test_a_refusal_in_words_needs_a_reason():
    seed = find_case("cancel", "shipped")
    steps = play(seed, verify(seed), "Sorry, I can't do that.", "It can't be cancelled, it has been shipped.")
    assert steps[1][0] == f"Customer: {WHY_NOT}"
    assert steps[2][:3] == (f"Customer: {ACCEPTS} {SOLVED}", 1.0, True)
    wrong = play(seed, verify(seed), "Sorry, I can't: it is more than 30 days ago.")[-1]
    assert wrong[:3] == (f"Customer: {ACCEPTS} {FAILED}", 0.0, True)
    both = play(seed, verify(seed), "Sorry, I can't: it was shipped, and that was more than 30 days ago.")[-1]
    assert both[1] == 0.0, "naming every reason must not pass for naming the right one"


def test_a_customer_may_plead():
    seed = find_case("cancel", "shipped", level=3, pushes=1)
    refusal = "I can't cancel what has been shipped."
    steps = play(seed, *["What are your email and zip?"], verify(seed, 3), refusal, "No, I can't.", level=3)
    assert steps[2][0] == f"Customer: {PLEA}"
    assert steps[3][:2] == (f"Customer: {ACCEPTS} {SOLVED}", 1.0)


def test_the_customer_leaves_when_the_request_is_done():
    seed = find_case("return")
    case = draw_case(seed, KINDS, 1)
    assert play(seed, "It is done.")[-1][:3] == (f"Customer: {THANKS} {FAILED}", 0.0, True)
    steps = play(seed, verify(seed), call_for(case.request), "I have refunded the item.")
    assert steps[-1][:3] == (f"Customer: {THANKS} {SOLVED}", 1.0, True)


def test_breaking_the_policy_loses_the_case_despite_a_right_database():
    seed = find_case("cancel")
    order = draw_case(seed, KINDS, 1).request.order
    cancel = write_call("cancel", order=order)
    look = write_call("order", order=order)
    case = draw_case(seed, KINDS, 1)
    other = next(o.id for o in case.stock.orders if o.customer != case.customer.id)
    assert play(seed, verify(seed), cancel, close("done"))[-1][1] == 1.0
    assert play(seed, cancel, verify(seed), close("done"))[-1][1] == 0.0
    assert play(seed, look, verify(seed), cancel, close("done"))[-1][1] == 0.0
    assert play(seed, verify(seed), write_call("order", order=other), cancel, close("done"))[-1][1] == 0.0


def test_additional_changes_lose_the_case():
    seed = find_case("cancel")
    case = draw_case(seed, KINDS, 1)
    address = write_call("address", order=case.request.order, address="1 Elm Street")
    assert play(seed, verify(seed), address, call_for(case.request), close("done"))[-1][1] == 0.0


def test_a_refusal_without_verification_loses_the_case():
    seed = find_case("cancel", "identity")
    assert play(seed, close("identity"))[-1][1] == 0.0
    steps = play(seed, verify(seed), close("identity"))
    assert steps[0][0] == NO_MATCH
    assert steps[1][1] == 1.0


def test_invalid_calls_cost_a_little_and_give_the_reason():
    seed = find_case("cancel")
    for action, says in [
        ('{"tool": "cancel", "args": {"order": 1}}', "Error: no order 1."),
        ('{"tool": "cancel"', 'Error: not a call: write {"tool": NAME, "args": {...}}.'),
        ('{"tool": "product", "args": {"product": "moon"}}', "Error: no product 'moon'."),
        ('{"tool": "cancel", "args": {"order": "512"}}', "Error: order must be an integer."),
    ]:
        observation, reward, terminated, truncated, info = play(seed, action)[0]
        assert (observation, reward, terminated, truncated) == (says, -0.02, False, False)
        assert info["invalid_action"] is True
    said = play(seed, "Blue moons.")[0]
    assert said[:2] == (f"Customer: {NOT_UNDERSTOOD}", 0.0)
    assert said[4]["invalid_action"] is True


SQL = [
    "' OR '1'='1",
    "'; DROP TABLE orders; --",
    "x' UNION SELECT id, name, email, zip FROM customers --",
    '" OR 1=1 --',
    "%",
]


@pytest.mark.parametrize("attack", SQL)
def test_sql_in_an_argument_is_plain_text(attack):
    seed = find_case("return")
    case = draw_case(seed, KINDS, 1)
    number = case.request.order
    attacks = [
        write_call("verify", email=attack, zip="1"[:10]),
        write_call("verify", email=case.customer.email, zip=attack[:10]),
        write_call("product", product=attack[:40]),
        write_call("return", order=number, item=attack[:40], payment="card"),
        write_call("exchange", order=number, item=case.request.item, new=attack[:40]),
        write_call("address", order=0, address=attack),
    ]
    steps = play(seed, *attacks, verify(seed), call_for(case.request), close("done"))
    assert [step[0] for step in steps[:2]] == [NO_MATCH, NO_MATCH]
    assert all(step[0].startswith("Error: no ") or "has no" in step[0] for step in steps[2:6])
    assert steps[-1][1] == 1.0, "nothing of it may have changed the database"


def test_turns_without_an_end_are_truncated():
    steps = play(0, *["Hello"] * MAX_TURNS)
    assert [step[3] for step in steps] == [False] * (MAX_TURNS - 1) + [True]


# --- cases and policy -------------------------------------------------------------------------------------


def test_the_policy_agrees_with_the_drawn_cases():
    shop = Shop()
    for case in CASES:
        shop.fill(case.stock)
        found = shop.find_customer(case.customer.email, case.zip)
        assert reasons(shop, found and found.id, case.request) == case.reasons
    shop.close()


def test_cases_are_sound_and_differ():
    for case in CASES:
        assert len({order.id for order in case.stock.orders}) == 8
        own = [order for order in case.stock.orders if order.customer == case.customer.id]
        if "owner" not in case.reasons:
            assert [order.id for order in own if order.line(case.hint)] == [case.request.order]
        if "payment" in case.reasons:
            assert "payment" in case.disclosed
    assert {(case.request.kind, *case.reasons) for case in CASES} == {
        (kind, *reason) for kind in KINDS for reason in [(), *[(r,) for r in FORBIDDEN_BY[kind]]]
    }
    forbidden = sum(bool(case.reasons) for case in CASES) / len(CASES)
    assert abs(forbidden - FORBIDDEN) < 0.08
    disclosed = [topic in case.disclosed for case in CASES for topic in ("email", "zip")]
    assert abs(sum(disclosed) / len(disclosed) - DISCLOSED) < 0.08


def test_levels_determine_what_a_customer_withholds():
    ones, twos = ([draw_case(seed, KINDS, level) for seed in range(200)] for level in (1, 2))
    assert all(case.disclosed.issuperset(NEEDED[case.request.kind]) for case in ones)
    assert 5 < sum(case.disclosed.issuperset(NEEDED[case.request.kind]) for case in twos) < 40
    assert all(case.knows_order and not case.pushes for case in ones + twos)
    assert 20 < sum(not case.knows_order for case in CASES) < 200


def test_tasks_and_cases_restrict_the_drawn_cases():
    env = envs.make("support_desk", tasks=["cancel"], cases=3)
    first = [env.reset(seed=seed) for seed in range(6)]
    assert [info["task_id"] for _, info in first] == [f"cancel-{i}" for i in (0, 1, 2, 0, 1, 2)]
    assert [text for text, _ in first[:3]] == [text for text, _ in first[3:]]
    assert len({text for text, _ in first}) == 3


def test_the_first_observation_contains_policy_and_tools_unless_brief():
    full, brief = (envs.make("support_desk", observe=observe).reset(seed=1)[0] for observe in ("full", "brief"))
    assert full == f"{POLICY} {TOOLS.describe()} {brief}"
    assert all(f"({reason})" in POLICY for reason in RESULTS[1:])
    assert f"{RETURN_DAYS} days" in POLICY
    assert [tool["function"]["name"] for tool in envs.spec("support_desk").tools] == list(TOOLS.tools)


# --- the shop ---------------------------------------------------------------------------------------------


def test_operations_change_the_database():
    shop = Shop()
    case = next(case for case in CASES if case.request.kind == "exchange" and not case.reasons)
    order, item, new = case.request.order, case.request.item, case.request.new
    shop.fill(case.stock)
    before = shop.snapshot()
    left = shop.left(item), shop.left(new)
    after = shop.snapshot_after("exchange", order, item, new)
    assert before == shop.snapshot() != after
    shop.exchange(order, item, new)
    assert shop.snapshot() == after
    assert (shop.left(item), shop.left(new)) == (left[0] + 1, left[1] - 1)
    assert shop.order(order).line(new) is not None
    shop.take_back(order, new, "voucher")
    assert shop.order(order).line(new).status == "returned"
    assert shop.snapshot()[-1] == [(order, new, shop.stock(new.split()[1])[0], "voucher")]
    with pytest.raises(ToolError, match="returned already"):
        shop.take_back(order, new, "voucher")
    shop.cancel(order)
    assert shop.order(order).status == CANCELLED
    with pytest.raises(ToolError, match="cancelled already"):
        shop.cancel(order)
    with pytest.raises(ToolError, match="cancelled, not delivered"):
        shop.exchange(order, new, item)
    shop.fill(case.stock)
    assert shop.snapshot() == before
    shop.close()


def test_impossible_operations_are_refused():
    shop = Shop()
    case = next(case for case in CASES if case.reasons == {"stock"})
    shop.fill(case.stock)
    order = case.request.order
    for operation, says in [
        (("exchange", order, case.request.item, case.request.new), "is out of stock"),
        (("exchange", order, case.request.item, "blue moon"), "no item 'blue moon'"),
        (("exchange", order, "blue moon", case.request.item), f"order {order} has no 'blue moon'"),
        (("exchange", order, case.request.item, case.request.item), "has a"),
        (("take_back", 1, case.request.item, "card"), "no order 1"),
        (("change_address", 1, "x"), "no order 1"),
    ]:
        before = shop.snapshot()
        with pytest.raises(ToolError, match=says):
            getattr(shop, operation[0])(*operation[1:])
        assert shop.snapshot() == before
    shop.close()


# --- the customer -----------------------------------------------------------------------------------------


def customer(**changes) -> Customer:
    case = next(c for c in CASES if c.request.kind == "exchange" and not c.reasons)
    case = replace(case, knows_order=True, pushes=0, **changes)
    return Customer(case, set())


@pytest.mark.parametrize(
    ("text", "topics"),
    [
        ("What is your email?", {"email"}),
        ("Could you give me your e-mail address and ZIP code, please?", {"email", "zip", "address"}),
        ("What's your name?", {"name"}),
        ("What is the order number?", {"order"}),
        ("Which order is it?", {"order"}),
        ("Please tell me your postcode", {"zip"}),
        ("Which item do you want to exchange?", {"item"}),
        ("What would you like instead?", {"new"}),
        ("Which colour?", {"new"}),
        ("Where should we send it?", {"address"}),
        ("How shall we refund it?", {"payment"}),
        ("WHAT IS YOUR EMAIL", {"email"}),
    ],
)
def test_questions_are_understood(text, topics):
    one = customer()
    reply = one.hear(text)
    assert reply.understood
    assert not reply.done
    assert one.disclosed == topics


def test_answers_are_true_and_disclosed_topics_join_the_request():
    one = customer()
    case = one.case
    assert one.hear("email?").text == f"My email is {case.customer.email}."
    assert one.hear("zip?").text == f"My zip is {case.zip}."
    assert one.hear("Which order?").text == f"It is order {case.request.order}."
    assert one.hear("Which item?").text == f"The {case.request.item}."
    assert one.hear("What do you want instead?").text == f"I want a {case.request.new}."
    assert one.hear("Hello, how can I help you?").text.endswith(
        f" exchange the {case.request.item} of order {case.request.order} for a {case.request.new}."
    )


def test_an_item_identifies_an_order_of_unknown_number():
    case = next(case for case in CASES if not case.knows_order)
    assert Customer(case, set()).hear("Order number?").text == f"I don't know its number. There is a {case.hint} in it."
    assert str(case.request.order) not in Customer(case, {"order", "email", "zip"}).opening()


@pytest.mark.parametrize("text", ["", "\x00", "asdf", "{", "?" * 100_000, "email? " * 1000, "ваш адрес?", "\ud800"])
def test_nonsense_is_not_understood(text):
    assert customer().hear(text).text == NOT_UNDERSTOOD


# --- the demonstrator --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_best_play_solves_every_case(level):
    for game in envs.demonstrate("support_desk", episodes=150, skill=1.0, seed=0, level=level):
        assert game.ret == 1.0, game
        assert len(game.actions) <= 10


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"tasks": "cancel"}, "tasks is the string 'cancel'"),
        ({"tasks": ["cancell"]}, "did you mean 'cancel'"),
        ({"tasks": []}, "tasks is empty"),
        ({"level": 4}, r"level is 4, must be one of \(1, 2, 3\)"),
        ({"observe": "none"}, "observe is 'none'"),
        ({"cases": 0}, "cases is 0"),
    ],
)
def test_bad_arguments(arguments, says):
    with pytest.raises(EnvArgumentError, match=says):
        envs.make("support_desk", **arguments)


def test_returns_by_skill():
    rows = envs.returns_by_skill("support_desk", [0.0, 0.5, 0.75, 1.0], episodes=200)
    for row, (low, high) in zip(rows, [(-0.01, 0.03), (0.05, 0.2), (0.3, 0.55), (1.0, 1.0)], strict=True):
        assert low <= row.mean <= high, row
