"""Random strings against the environments with tools: no exception, no hang, no revealed goal, deterministic
answers.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import envs
from envs import TextEnv, unwrapped
from envs.support_desk import SupportDesk, draw_case
from envs.support_desk.cases import KINDS
from envs.support_desk.demonstrator import possible_actions
from envs.tool_use import ToolUse, draw_task
from envs.tool_use.tasks import FAMILIES

EXAMPLES, TURNS, SEEDS = 170, 20, 3
LONGEST_ANSWER = 2_000


def hide_desk(env: TextEnv) -> None:
    """Replace the goal behind the same words; no answer may depend on it."""
    desk = unwrapped(env)
    assert isinstance(desk, SupportDesk)
    desk._goal = ()
    desk._case = replace(desk._case, reasons=frozenset())


def desk_words() -> list[str]:
    """Return strings with a meaning at the desk, including the customers' own data."""
    found: set[str] = set()
    for seed in range(10):
        case = draw_case(seed, KINDS, 3)
        found |= set(possible_actions(case, frozenset({"email", "zip", "order", "item", "new", "address"})))
        found |= {item for order in case.stock.orders for item in (order.address, order.lines[0].item)}
        found |= {customer.email for customer in case.stock.customers}
    return sorted(found)


SQL = ["' OR 1=1 --", "'; DROP TABLE orders; --", "1 UNION SELECT 1", "ATTACH DATABASE 'x' AS y", "%", "\\", "''"]
ODD = ["", " ", "\n", "\x00", "\x1b[31m", "\ud800", "\u202eabc", "İ", "中文", "{", "[]", "null", "{}" * 50, "0" * 5000]
HUGE = ["a" * 100_000, "{" * 100_000, '{"tool": "' + "x" * 100_000, "[" * 2000 + "]" * 2000, '{"tool":' * 300]


def actions(words: list[str], tools: list[dict]) -> st.SearchStrategy[str]:
    """Return strings of all sorts: valid and invalid calls, truncated and nested ones, SQL in arguments, and random
    text.
    """
    text = st.text(max_size=30) | st.sampled_from([*words, *SQL, *ODD])
    leaf = text | st.integers() | st.floats() | st.booleans() | st.none()
    value = leaf | st.recursive(
        leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3)
    )
    calls = [
        st.fixed_dictionaries(
            {
                "tool": st.just(tool["function"]["name"]),
                "args": st.fixed_dictionaries(
                    {
                        name: text | (st.integers(0, 1000) if schema["type"] == "integer" else st.sampled_from(words))
                        for name, schema in tool["function"]["parameters"]["properties"].items()
                    }
                ),
            }
        )
        for tool in tools
    ]
    objects = st.one_of(*calls) | st.dictionaries(st.sampled_from(["tool", "args", "name", "x"]), value)
    written = objects.map(json.dumps) | objects.map(lambda found: json.dumps(found, ensure_ascii=False))
    cut = st.tuples(written, st.integers(1, 60)).map(lambda pair: pair[0][: pair[1]])
    return written | cut | text | st.sampled_from(words) | st.sampled_from(HUGE)


def hide_tool_use(env: TextEnv) -> None:
    """Replace the goal behind the same task."""
    office = unwrapped(env)
    assert isinstance(office, ToolUse)
    office._goal = None


def office_words() -> list[str]:
    """Return paths, queries, titles and expressions with a meaning, and whole calls."""
    found = {
        "staff",
        "SELECT * FROM staff",
        "DELETE FROM sales",
        "sum.txt",
        "costs/may.txt",
        "..",
        "mon",
        "1+1",
        "9**9",
    }
    for seed in range(20):
        content, task = draw_task(seed, FAMILIES)
        found |= {*task.script, *content.files, *(meeting.title for meeting in content.meetings)}
    return sorted(found)


CASES: list[tuple[str, Callable[[TextEnv], None], list[str]]] = [
    ("support_desk", hide_desk, desk_words()),
    ("tool_use", hide_tool_use, office_words()),
]


@pytest.mark.parametrize(("env_id", "hide", "words"), CASES, ids=[case[0] for case in CASES])
def test_ten_thousand_random_actions(env_id, hide, words):
    env, hidden = envs.make(env_id, observe="brief"), envs.make(env_id, observe="brief")
    low, high = env.spec.reward_range
    played = 0

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(seed=st.integers(1, 2**62), data=st.data())
    def play(seed, data):
        nonlocal played
        script = data.draw(st.lists(actions_of_env, min_size=TURNS, max_size=TURNS))
        for number, action in itertools.product(range(SEEDS), script):
            if played % TURNS == 0:
                assert env.reset(seed=seed + number)[0] == hidden.reset(seed=seed + number)[0]
                hide(hidden)
            played += 1
            observation, reward, terminated, truncated, info = env.step(action)
            again = hidden.step(action)
            assert low <= reward <= high
            assert 0 < len(observation) <= LONGEST_ANSWER
            assert observation.encode()
            assert isinstance(info["success"], bool)
            if terminated or truncated:
                assert again[2:4] == (terminated, truncated)
                assert env.reset(seed=seed - 1)[0] == hidden.reset(seed=seed - 1)[0]
                hide(hidden)
            else:
                assert (observation, reward, info["invalid_action"]) == (*again[:2], again[4]["invalid_action"])

    actions_of_env = actions(words, [dict(tool) for tool in env.spec.tools])
    play()
    assert played >= 10_000
    env.close()
    hidden.close()
