"""TextWorld's games through their adapter: made, played, refused. All tests share one small game."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from rules import random_string

import envs
from envs import EnvArgumentError, TimeLimit
from envs.adapters.textworld_games import CLOSED, TextWorld, TextWorldDemonstrator, clean
from envs.demonstrations import play

needs_textworld = pytest.mark.skipif(
    bool(envs.missing_modules("textworld")), reason="needs the extra textworld (make install)"
)
SMALL = {"worlds": 1, "rooms": 2, "objects": 3, "quest_length": 2}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Arguments of a small game, which its first user makes."""
    return SMALL | {"cache": str(tmp_path_factory.mktemp("textworld"))}


@pytest.fixture(scope="module")
def game(small):
    env = envs.make("textworld", **small)
    yield env
    env.close()


@needs_textworld
def test_the_games_own_solution_wins(game):
    played = play(game, TextWorldDemonstrator(skill=1.0), seed=0)
    assert (played.ret, played.success, played.terminated, played.truncated) == (1.0, True, True, False)
    assert played.rewards[-1] == 1.0
    assert len(played.actions) <= 2
    assert played.task_id == "world-0"
    assert "$$" not in played.observations[0]
    assert not any(">" in observation for observation in played.observations)


@needs_textworld
def test_a_game_that_was_made_can_be_loaded_from_its_file(small, game):
    first, info = game.reset(seed=5)
    (made,) = Path(small["cache"]).rglob("*.z8")
    own = envs.make("textworld", game=str(made))
    again, own_info = own.reset(seed=9)
    own.close()
    assert again == first
    assert own_info["valid_actions"] == info["valid_actions"]
    assert own_info["task_id"] == "game"


@needs_textworld
def test_refused_commands_cost_a_turn(game):
    game.reset(seed=0)
    for action in ("tw-trace-actions", "restart", "quit", "", "look. look", "x" * 5000):
        observation, reward, terminated, truncated, info = game.step(action)
        assert (observation, reward, terminated, truncated) == (CLOSED, 0.0, False, False)
        assert info["invalid_action"]
    assert game.step("frobnicate")[4]["invalid_action"]
    assert not game.step("look")[4]["invalid_action"]


@needs_textworld
def test_the_turn_limit_truncates(game):
    short = TimeLimit(game.env, 3)
    short.reset(seed=0)
    assert [short.step("look")[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]


@needs_textworld
def test_any_string_is_an_action(game):
    """200 turns instead of 10,000, because the game computes all admissible commands, at about 50 turns a second."""
    words = ["take", "open", "go", "north", "south", "drop", "look", "inventory", "tw-print", "restart", "put", "on"]
    rng = random.Random(0)
    ended = True
    for _ in range(200):
        if ended:
            game.reset(seed=rng.randrange(2**63))
        observation, reward, terminated, truncated, info = game.step(random_string(rng, words))
        ended = terminated or truncated
        assert observation
        assert 0.0 <= reward <= 1.0
        assert isinstance(info["invalid_action"], bool)
        assert info["success"] <= terminated


@needs_textworld
def test_the_seed_decides_the_episode_and_global_random_is_unused(game):
    random.seed(1)
    expected = random.Random(1).random()
    player = TextWorldDemonstrator(skill=0.3)
    assert play(game, player, seed=4) == play(game, player, seed=4)
    assert random.random() == expected


@needs_textworld
def test_bad_arguments_are_refused_before_any_process_starts(tmp_path):
    with pytest.raises(EnvArgumentError, match="rooms is 0, must be at least 1"):
        envs.check("textworld", rooms=0)
    with pytest.raises(EnvArgumentError, match=r"none\.z8 does not exist"):
        envs.make("textworld", game=str(tmp_path / "none.z8"))
    for name in ("game.ulx", "game.json"):
        (tmp_path / name).touch()
    with pytest.raises(EnvArgumentError, match=r"not a \.z8 file"):
        TextWorld.check_arguments(game=str(tmp_path / "game.ulx"))


def test_titles_prompts_and_status_lines_are_cut():
    text = "\n   $$ \\ $$ \n  ____\n\nWelcome!\n\n-= Attic =-\nDust.  \n\n>      -= Attic =-0/1"
    assert clean(text) == "Welcome!\n-= Attic =-\nDust."
    assert clean("\nTaken.\n") == "Taken."
