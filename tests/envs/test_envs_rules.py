"""The rules that every environment keeps, checked in the same way for each."""

from __future__ import annotations

import random

import pytest
from rules import check_any_string_is_an_action, digest, digest_elsewhere

import envs
from envs import EnvArgumentError, EnvStateError

MOVES = ["move", "go", "up", "down", "left", "right", "move up", "move down", "move left", "move right"]
GAMES: list[tuple[str, dict]] = [
    ("guess_my_city", {}),
    ("guess_my_city", {"cities": ["Paris", "Rome", "Bogotá", "Xi'an", "Lagos"], "compat": True}),
    ("key_door", {}),
    ("key_door", {"size": 2}),
    ("maze", {}),
    ("maze", {"observe": "partial", "seeded": True, "compat": True}),
    ("support_desk", {}),
    ("support_desk", {"tasks": ["cancel", "return"], "level": 1, "observe": "brief", "cases": 8}),
    ("text_adventure", {}),
    ("text_adventure", {"worlds": 4}),
    ("text_nav", {}),
    ("text_nav", {"observe": "partial"}),
    ("tool_use", {}),
    ("tool_use", {"level": 1, "observe": "brief", "cases": 8}),
    ("webshop", {}),
    ("webshop", {"observe": "full", "items": 50, "goals": 5, "results_per_page": 10}),
    ("web_forms", {}),
    ("web_forms", {"level": 1}),
    ("wordle", {}),
    ("wordle", {"compat": True}),
]
WORDS = {
    "guess_my_city": [
        "is",
        "it",
        "your city",
        "Paris",
        "in",
        "Asia",
        "known for",
        "what",
        "language",
        "more than",
        "9",
        "?",
    ],
    "key_door": [*MOVES, "pick", "key", "door"],
    "maze": [*MOVES, "north", "to", "the"],
    "support_desk": [
        '{"tool": "order", "args": {"order": 512}}',
        '{"tool": "cancel", "args": {"order": 512}}',
        '{"tool": "product", "args": {"product": "mug"}}',
        '{"tool": "close", "args": {"result": "shipped"}}',
        '{"tool": "verify", "args":',
        "What is",
        "your email?",
        "zip",
        "Sorry, I can't:",
        "it has been shipped.",
        "done",
    ],
    "text_adventure": [
        "go",
        "north",
        "go down",
        "take",
        "the lamp",
        "talk to Ruth",
        "give",
        "pull red",
        "lever",
        "read",
        "light",
    ],
    "text_nav": [
        "go",
        "north",
        "go south",
        "go east",
        "open",
        "door",
        "take the apple",
        "put",
        "in",
        "fridge",
        "eat cup",
    ],
    "tool_use": [
        '{"tool": "list"}',
        '{"tool": "read", "args": {"path": "todo.txt"}}',
        '{"tool": "sql", "args": {"query": "DELETE FROM staff"}}',
        '{"tool": "calc", "args": {"expression": "9**9**9"}}',
        '{"tool": "agenda", "args": {"day": "mon"}}',
        '{"tool": "done"}',
        '{"tool": "write", "args":',
        "SELECT",
        "sum.txt",
    ],
    "webshop": [
        "search[shirt]",
        "search[",
        "click[1]",
        "click[",
        "buy now",
        "click[next >]",
        "click[< prev]",
        "]",
        "navy",
    ],
    "web_forms": [
        "click[1]",
        "click",
        "[2]",
        "type[1]",
        "Oslo",
        "select[2] Peru",
        "check[3]",
        "fill('1', 'Oslo')",
        "4",
    ],
    "wordle": ["crane", "c r a n e", "c", "r", "a", "n", "e", "zzzzz", "guess", "GUESS", "apple."],
}

every_game = pytest.mark.parametrize(("env_id", "kwargs"), GAMES, ids=str)


@every_game
def test_every_string_is_an_action(env_id, kwargs):
    check_any_string_is_an_action(env_id, WORDS[env_id], turns=500, **kwargs)


@every_game
def test_the_seed_decides_the_episode_and_global_random_is_unused(env_id, kwargs):
    random.seed(1)
    expected = random.Random(1).random()

    def play(seed):
        return list(envs.demonstrate(env_id, episodes=3, skill=0.5, seed=seed, **kwargs))

    assert play(0) == play(0)
    assert len({str(play(seed)) for seed in range(5)}) > 1
    assert play(0)[1:] == list(envs.demonstrate(env_id, episodes=2, skill=0.5, seed=1, **kwargs))
    assert random.random() == expected


def test_episodes_are_the_same_in_every_process():
    here = digest(GAMES)
    assert [digest_elsewhere(GAMES, hash_seed=seed) for seed in (1, 2)] == [here, here]


@every_game
def test_reset_clears_the_last_episode(env_id, kwargs):
    env = envs.make(env_id, **kwargs)
    first = env.reset(seed=4)
    for action in first[1].get("valid_actions", ["?"]):
        if any(env.step(action)[2:4]):
            break
    assert env.reset(seed=4)[0] == first[0]


@every_game
def test_wrong_options_and_wrong_order_are_refused(env_id, kwargs):
    env = envs.make(env_id, **kwargs)
    with pytest.raises(EnvArgumentError, match="nonsense"):
        env.reset(seed=0, options={"nonsense": 1})
    with pytest.raises(EnvStateError, match="reset first"):
        envs.unwrapped(env).step("?")


@every_game
def test_returns_rise_with_skill(env_id, kwargs):
    rows = envs.returns_by_skill(env_id, [0.0, 0.5, 1.0], episodes=60, **kwargs)
    assert [row.mean for row in rows] == sorted(row.mean for row in rows)
    low, high = envs.make(env_id, **kwargs).spec.reward_range
    assert rows[0].mean + 0.2 * (high - low) < rows[-1].mean
    assert rows[-1].success_rate >= 0.95
