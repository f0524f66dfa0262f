"""Checks of the rules that every environment keeps, for the tests of any environment."""

from __future__ import annotations

import hashlib
import json
import os
import random
import string
import subprocess
import sys

import envs
from envs import INVALID_ACTION, SUCCESS, TASK_ID

_CHILD = "import json, sys; from rules import digest; print(digest(**json.loads(sys.argv[1])))"


def check_any_string_is_an_action(env_id: str, words: list[str], *, turns: int = 500, **kwargs) -> None:
    """Play `turns` turns of random strings, made of `words` and of random characters, over several episodes."""
    rng = random.Random(env_id)
    env = envs.make(env_id, **kwargs)
    low, high = env.spec.reward_range
    played = 0
    while played < turns:
        observation, info = env.reset(seed=rng.randrange(2**63))
        assert observation
        assert info[TASK_ID]
        ret, terminated, truncated = 0.0, False, False
        while not (terminated or truncated):
            observation, reward, terminated, truncated, info = env.step(random_string(rng, words))
            played += 1
            ret += reward
            assert observation
            assert isinstance(info[SUCCESS], bool)
            assert isinstance(info[INVALID_ACTION], bool)
            assert info[SUCCESS] <= terminated
        assert truncated == (env.turn == env.spec.max_turns and not terminated)
        assert low - 1e-9 <= ret <= high + 1e-9
    env.close()


def random_string(rng: random.Random, words: list[str]) -> str:
    """Return a random sequence of the environment's words or of any characters, sometimes a very long one."""
    kind = rng.randrange(20)
    if kind == 0:
        return rng.choice(["", " ", "\n", "\x00", "." * 100_000, "İ", "\ud800", "'; DROP TABLE"])
    if kind < 5:
        letters = string.printable + "éßЖ中\u200b\U0001f600"
        return "".join(rng.choices(letters, k=rng.randrange(40)))
    return " ".join(rng.choices(words, k=rng.randrange(1, 6)))


def digest(games: list[tuple[str, dict]], episodes: int = 5) -> str:
    """Return one hash of scripted episodes of all `games` at skill 0.5."""
    played = [
        vars(demonstration)
        for env_id, kwargs in games
        for demonstration in envs.demonstrate(env_id, episodes=episodes, skill=0.5, seed=11, **kwargs)
    ]
    return hashlib.sha256(json.dumps(played, sort_keys=True).encode()).hexdigest()


def digest_elsewhere(games: list[tuple[str, dict]], *, hash_seed: int) -> str:
    """Return `digest` from another process with another hash seed for strings."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, json.dumps({"games": games})],
        env=os.environ | {"PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
