"""TextArena's games through their adapter: which can be played, how they end, and which actions they accept."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest

import envs
from envs import EnvArgumentError
from envs.adapters.textarena_games import CLOSED_FAMILIES, FAMILIES, TextArena

needs_textarena = pytest.mark.skipif(
    bool(envs.missing_modules("textarena")), reason="needs the extra textarena (make install)"
)

# In another process, because the games seed the global random: 60 random turns of every family.
FUZZ = """
import json, random
from envs.adapters.textarena_games import FAMILIES, TextArena
from rules import random_string
said = "1 2 3 4|up|left|right|A1|hit|stand|reveal 0 0|A B|1 1 1|3|flag 0 0|red|5 + 3"
words = [f"[{text}]" for text in said.split("|")]
words += ["[", "]", "[]", "[[1]]", "9" * 5000, "[" + "9" * 1900 + "]", "[9**9**9]", "-1", "[0 -1]"]
turns = {}
for family in FAMILIES:
    env, rng = TextArena(game=f"{family}-v0"), random.Random(family)
    for episode in range(2):
        observation, info = env.reset(seed=episode)
        assert observation and info["task_id"] == f"{family}-v0-{episode}"
        for turn in range(60):
            action = rng.choice(words) if rng.random() < 0.7 else random_string(rng, words)
            observation, reward, terminated, truncated, info = env.step(action)
            assert observation and -1 <= reward <= 1 and isinstance(info["invalid_action"], bool), (family, action)
            assert info["success"] <= terminated and not (terminated and truncated), (family, action)
            if terminated or truncated:
                break
    turns[family] = turn
print(json.dumps(turns))
"""


@pytest.fixture(scope="module")
def guessing():
    env = envs.make("textarena", game="GuessTheNumber-v0")
    yield env
    env.close()


@needs_textarena
def test_every_family_starts_offline_and_takes_any_string():
    done = subprocess.run(
        [sys.executable, "-c", FUZZ],
        env={"PYTHONPATH": ":".join(filter(None, sys.path)), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout.splitlines()[-1])) == set(FAMILIES)


@needs_textarena
def test_a_game_is_won_by_its_hints(guessing):
    observation, info = guessing.reset(seed=1)
    assert "Guess The Number" in observation
    low, high = 1, 20
    while True:
        guess = (low + high) // 2
        observation, reward, terminated, truncated, info = guessing.step(str(guess))
        if terminated or truncated:
            break
        assert reward == 0.0
        assert f"[{guess}]" not in observation, "the player's own words are not repeated"
        low, high = (guess + 1, high) if "higher" in observation else (low, guess - 1)
    assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, True)
    assert "Congratulations" in observation


@needs_textarena
def test_the_games_own_turn_limit_is_truncated(guessing):
    for seed in range(20):
        guessing.reset(seed=seed)
        for guess in range(1, 12):
            _, reward, terminated, truncated, info = guessing.step(f"[{guess}]")
            if terminated or truncated:
                break
        if not terminated:
            break
    assert (terminated, truncated, info["success"]) == (False, True, False)
    assert 0.0 <= reward < 1.0


@needs_textarena
def test_a_refused_action_ends_the_game_with_compat_only(guessing):
    guessing.reset(seed=0)
    for _ in range(5):
        observation, reward, terminated, truncated, info = guessing.step("no number at all")
        assert (reward, terminated, truncated, info["invalid_action"]) == (0.0, False, False, True)
        assert "invalid move" in observation
    assert guessing.turn == 5
    theirs = envs.make("textarena", game="GuessTheNumber-v0", compat=True)
    theirs.reset(seed=0)
    assert [theirs.step("no number")[2] for _ in range(2)] == [False, True]
    theirs.close()


@needs_textarena
def test_the_seed_decides_the_episode_and_global_random_is_unused(guessing):
    random.seed(1)
    expected = random.Random(1).random()

    def play(seed):
        return guessing.reset(seed=seed)[0], guessing.step("10")[:4]

    assert play(3) == play(3)
    assert len({play(seed) for seed in range(8)}) > 1
    assert random.random() == expected


@pytest.mark.parametrize(
    ("game", "says"),
    [
        *((f"{family}-v0", reason) for family, reason in CLOSED_FAMILIES.items()),
        ("Mastermind", "did you mean 'Mastermind-v0'"),
        ("Chess-v0", "no single-player game 'Chess-v0'"),
        ("", "no single-player game"),
    ],
)
def test_games_that_cannot_be_played_are_refused_with_the_reason(game, says):
    with pytest.raises(EnvArgumentError, match=says):
        TextArena.check_arguments(game=game)


@needs_textarena
def test_an_unknown_variant_is_refused_by_its_child():
    env = envs.make("textarena", game="Mastermind-v0-harder")
    with pytest.raises(EnvArgumentError, match="did you mean 'Mastermind-v0-hard'"):
        env.reset(seed=0)
    env.close()
