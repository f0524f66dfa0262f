"""Actions: every environment that can be made here, played twice with the same seed and random strings."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

import envs
from bench.env_tasks import DEFAULTS
from bench.fuzz_core import Probe, Target
from envs import INVALID_ACTION, PRIVILEGED, SUCCESS

HOSTILE = [
    "",
    " ",
    "\x00",
    "\x1b[2J\r\n",
    "a" * 100_000,
    "[" * 10_000,
    '{"name": "search", "arguments": {"q',
    "'; DROP TABLE orders; --",
    "../../etc/passwd",
    "%s%n{0}${HOME}",
    "ſearch İstanbul ﬁ \u202e \ud800",
    "检查 проверка بحث 🛒",
]
"""Strings that break programs that read text."""
ACTIONS = 40
"""Actions of one example."""
SLOW = 0.01
"""Share of an environment in a child process, or on a thread, relative to one that runs inline."""
UNTRIED = frozenset({"miniwob", "openenv", "webshop_http", "detective", "textworld"})
"""Environments that need a browser, a server, a file of the user or seconds for each game."""


def targets() -> list[Target]:
    """Return a target for each environment that can be made here."""
    found = []
    for spec in envs.specs():
        if spec.id in UNTRIED or (spec.extra is not None and envs.missing_modules(spec.extra)):
            continue
        share = 1.0 if spec.isolation == "inline" else SLOW
        found.append(Target(f"env-{spec.id}", share, partial(_playing, spec.id, DEFAULTS.get(spec.id, {}))))
    return found


def familiar(env_id: str, kwargs: dict[str, Any]) -> list[str]:
    """Return strings with a meaning in the environment: actions of its demonstrator, valid actions, its own words."""
    env = envs.make(env_id, **kwargs)
    found: set[str] = set()
    for seed in range(3):
        observation, info = env.reset(seed=seed)
        found |= {*info.get(envs.VALID_ACTIONS, [])[:50]}
        found |= {*str(observation).split()[:50]}
    env.close()
    try:
        for demonstration in envs.demonstrate(env_id, episodes=3, skill=0.5, seed=0, **kwargs):
            found |= {*demonstration.actions}
    except envs.EnvError as error:
        if "no scripted demonstrator" not in str(error):
            raise
    return sorted(found)


def action_lists(words: list[str]) -> st.SearchStrategy[list[str]]:
    """Return lists of `ACTIONS` actions: words, words joined with random text, random text, hostile strings."""
    anything = st.text(st.characters(exclude_categories=()), max_size=30)
    word = st.sampled_from(words)
    mixed = st.lists(word | anything, max_size=4).map("".join)
    return st.lists(word | mixed | anything | st.sampled_from(HOSTILE), min_size=ACTIONS, max_size=ACTIONS)


def play(env: envs.TextEnv, seed: int, actions: list[str]) -> list[tuple[Any, ...]]:
    """Return all that the environment answers to the actions; a new episode begins after each end.

    Raises AssertionError if an observation is empty, of another form, or reveals the hidden word.
    """
    observation, info = env.reset(seed=seed)
    played: list[tuple[Any, ...]] = [(observation,)]
    secret = hidden_word(info)
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        check_observation(observation, secret)
        played.append((observation, reward, terminated, truncated, info.get(SUCCESS), info[INVALID_ACTION]))
        if terminated or truncated:
            seed += 1
            observation, info = env.reset(seed=seed)
            secret = hidden_word(info)
            played.append((observation,))
    return played


def hidden_word(info: dict[str, Any]) -> str | None:
    """Return the word that the episode hides, or None."""
    privileged = info.get(PRIVILEGED, {})
    return next((privileged[key] for key in ("word", "city") if isinstance(privileged.get(key), str)), None)


def check_observation(observation: envs.Observation, secret: str | None) -> None:
    """Raise AssertionError unless an observation is text or chat messages, not empty, and without the hidden word."""
    if isinstance(observation, str):
        text = observation
    else:
        assert all(set(message) == {"role", "content"} for message in observation), f"messages {observation!r}"
        text = "\n".join(message["content"] for message in observation)
    assert text, "an empty observation"
    # As a word: "Invalid word." does not reveal "valid", a word of Wordle.
    revealed = secret is not None and re.search(rf"\b{re.escape(secret)}\b", text, re.IGNORECASE)
    assert not revealed, f"{text!r} reveals {secret!r}"


@contextmanager
def _playing(env_id: str, kwargs: dict[str, Any], folder: Path) -> Iterator[Probe]:
    del folder
    env = envs.make(env_id, **kwargs)
    low, high = env.spec.reward_range

    def check(value: tuple[int, list[str]]) -> None:
        seed, actions = value
        state = random.getstate()
        first = play(env, seed, actions)
        assert first == play(env, seed, actions), "the same seed and actions gave another episode"
        assert env.spec.isolation != "inline" or random.getstate() == state, "it drew from the global random"
        rewards = [turn[1] for turn in first if len(turn) > 1]
        assert all(low <= reward <= high for reward in rewards), f"a reward outside of {low} to {high}"

    try:
        yield Probe(st.tuples(st.integers(0, 2**62), action_lists(familiar(env_id, kwargs))), check, ACTIONS)
    finally:
        env.close()
