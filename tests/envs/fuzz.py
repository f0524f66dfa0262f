"""Random strings by Hypothesis, which every environment must accept without raising."""

from __future__ import annotations

import random
import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import envs
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
ACTIONS_AN_EXAMPLE = 40


def fuzz(env_id: str, words: list[str], *, actions: int = 10_000, leaves_random: bool = True, **kwargs) -> None:
    """Play `actions` actions made of `words`, of random text and of known hostile strings. Play each example twice,
    because the same seed and actions must give the same episode. Check that no observation contains the hidden word and
    that the global `random` is unused, unless `leaves_random` says that another part of the process draws from it.
    """
    env = envs.make(env_id, **kwargs)
    anything = st.text(st.characters(exclude_categories=()), max_size=30)
    word = st.sampled_from(words)
    mixed = st.lists(word | anything, max_size=4).map("".join)
    lists = st.lists(
        word | mixed | anything | st.sampled_from(HOSTILE),
        min_size=ACTIONS_AN_EXAMPLE,
        max_size=ACTIONS_AN_EXAMPLE,
    )

    def play(seed: int, chosen: list[str]) -> list[tuple]:
        observation, info = env.reset(seed=seed)
        played: list[tuple] = [(observation,)]
        secret = hidden_word(info)
        for action in chosen:
            observation, reward, terminated, truncated, info = env.step(action)
            assert_observation(observation, secret)
            played.append((observation, reward, terminated, truncated, info.get(SUCCESS), info[INVALID_ACTION]))
            if terminated or truncated:
                seed += 1
                observation, info = env.reset(seed=seed)
                secret = hidden_word(info)
                played.append((observation,))
        return played

    @settings(
        max_examples=-(-actions // ACTIONS_AN_EXAMPLE),
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**62), lists)
    def run(seed: int, chosen: list[str]) -> None:
        state = random.getstate()
        assert play(seed, chosen) == play(seed, chosen)
        assert random.getstate() == state or not leaves_random, f"{env_id} drew from the global random"

    run()
    env.close()


def hidden_word(info: dict) -> str | None:
    """Return the word that the episode hides, or None."""
    privileged = info.get(PRIVILEGED, {})
    return next((privileged[key] for key in ("word", "city") if isinstance(privileged.get(key), str)), None)


def assert_observation(observation: envs.Observation, secret: str | None) -> None:
    """Check that an observation is a string or chat messages, not empty, and without the hidden word."""
    if isinstance(observation, str):
        text = observation
    else:
        assert all(set(message) == {"role", "content"} for message in observation)
        text = "\n".join(message["content"] for message in observation)
    assert text
    # As a word: "Invalid word." does not reveal "valid", a word of Wordle.
    revealed = secret is not None and re.search(rf"\b{re.escape(secret)}\b", text, re.IGNORECASE)
    assert not revealed, f"{text!r} reveals {secret!r}"
