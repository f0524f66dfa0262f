"""Detective: the game in its child process, the filter for commands, and the walkthrough."""

from __future__ import annotations

import random
import subprocess
import sys
from functools import partial

import pytest
from detective_cases import STORY, LeftOpen, plays
from rules import check_any_string_is_an_action

import envs
from envs import EnvArgumentError, EnvStateError, ProcessEnv
from envs.detective import Detective, DetectiveDemonstrator
from envs.detective.game import BEST
from envs.detective.game import CLOSED as REFUSED
from envs.detective.story_file import check_story
from envs.hosting.child_process import HUNG
from envs.toolkit.inform_commands import CLOSED, read_command

GAME = {"story": str(STORY), "valid_actions": False}
DEATH = ["n", "w", "n"]  # Enter the restaurant, where the murderer waits.
WORDS = [
    "take",
    "gun",
    "paper",
    "drop",
    "all",
    "n",
    "w",
    "e",
    "purloin",
    "tree",
    "showverb",
    "save",
    "quit",
    "undo",
    ".",
]


@pytest.fixture(scope="module")
def game():
    """A game in a child process, shared by all tests that do not need a new one."""
    env = envs.make("detective", **GAME)
    yield env
    env.close()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "does not exist"),
        (b"", "not a Z-machine story file"),
        (b"#!/bin/sh\n" + b"x" * 100, "not a Z-machine story file"),
        (b"\x05" + b"\x00" * 99, "not that of Detective, release 1"),
    ],
)
def test_a_file_that_is_not_the_story_is_refused(tmp_path, content, says):
    path = tmp_path / "story.z5"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EnvArgumentError, match=f"story.z5.* {says}"):
        check_story("detective", str(path))


def test_a_missing_story_and_a_folder_are_refused(tmp_path):
    with pytest.raises(EnvArgumentError, match=r"a story file of your own: .*env\.kwargs\.story="):
        check_story("detective", None)
    with pytest.raises(EnvArgumentError, match="is not a file"):
        check_story("detective", str(tmp_path))


@plays
def test_the_story_is_checked_before_any_process_starts(tmp_path):
    for call in (envs.check, envs.make):
        with pytest.raises(EnvArgumentError, match="does not exist"):
            call("detective", story=str(tmp_path / "none.z5"))
        with pytest.raises(EnvArgumentError, match="did you mean 'story'"):
            call("detective", storey="x")


@pytest.mark.parametrize(
    ("action", "command"),
    [
        ("take paper", "take paper"),
        ("  Take the PAPER. ", "take the paper"),
        ("chief, give me the gun", "chief, give me the gun"),
        ("read footnote 3", "read footnote 3"),
        ("", None),
        ("...", None),
        ("take paper. w", None),
        ("take paper then w", None),
        ("w;e", None),
        ("take gun\x00", None),
        ("nimm das Gewöhr", None),
        ("w " * 60, None),
        ("purloin gun", None),
        ("PURLOIN   gun", None),
        ("showverb1 take", None),
        ("transcript", None),
        ("superbrief", None),
        ("chief, purloin gun", None),
        ("oops purloin", None),
        ("undo", None),
        ("climb tree", "climb tree"),
    ],
)
def test_commands_that_reach_the_game(action, command):
    assert read_command(action) == command


@plays
def test_every_meta_verb_of_the_game_is_closed_except_harmless_ones():
    """Run in another process, because the interpreter is a shared library."""
    script = f"import jericho; print(*(w.word for w in jericho.FrotzEnv({str(STORY)!r}).get_dictionary() if w.is_meta))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    meta = set(done.stdout.split())
    assert {"purloin", "showverb", "gonear", "tree", "scope", "abstract", "showobj", "random", "save", "q"} <= meta
    magic = {"melenkuri", "noside", "plover", "plugh", "samoht", "xyzzy", "zorton"}
    assert meta - CLOSED == {"footnote", "note"} | magic


@plays
def test_the_walkthrough_gains_every_point(game):
    walker = DetectiveDemonstrator(skill=1.0)
    played = envs.demonstrations.play(game, walker, seed=0)
    assert (played.ret, played.terminated, played.truncated, played.success) == (BEST, True, False, True)
    assert "Your score has just gone up" in played.observations[0]
    assert max(played.rewards) == 100.0
    assert len(played.actions) < game.spec.max_turns


@plays
def test_a_death_is_terminated_without_success(game):
    game.reset(seed=0)
    *_, last = (game.step(action) for action in DEATH)
    observation, _, terminated, truncated, info = last
    assert "died" in observation
    assert (terminated, truncated, info["success"]) == (True, False, False)
    with pytest.raises(EnvStateError, match="has ended"):
        game.step("n")


@plays
def test_a_refused_command_costs_a_turn_and_changes_nothing(game):
    _, info = game.reset(seed=0)
    for action in ("purloin gun", "gonear room", "restart", "", "x" * 100_000, "w. take gun"):
        observation, reward, terminated, truncated, after = game.step(action)
        assert (observation, reward, terminated, truncated) == (REFUSED, 0.0, False, False)
        assert after["invalid_action"]
        assert after["privileged"]["location"] == info["privileged"]["location"]
    assert game.turn == 6
    assert game.step("frobnicate the gun")[4]["invalid_action"]
    observation, reward, *_, info = game.step("TAKE the paper.")
    assert (reward, info["invalid_action"]) == (10.0, False)


@plays
def test_any_string_is_an_action():
    """2,000 turns instead of 10,000, because a turn of the interpreter takes a millisecond."""
    check_any_string_is_an_action("detective", WORDS, turns=2000, **GAME)


@plays
def test_the_seed_decides_the_episode_and_global_random_is_unused(game):
    random.seed(1)
    expected = random.Random(1).random()

    def play(seed):
        return envs.demonstrations.play(game, DetectiveDemonstrator(skill=0.5), seed=seed)

    assert play(3) == play(3)
    assert play(3).actions != play(4).actions
    assert random.random() == expected
    with pytest.raises(EnvArgumentError, match="nonsense"):
        game.reset(seed=0, options={"nonsense": 1})


@plays
def test_valid_actions_change_the_world_and_include_the_walkthrough():
    env = envs.make("detective", story=str(STORY))
    _, info = env.reset(seed=0)
    route = info["privileged"]["route"][:4]
    names = {"w": "west", "e": "east", "n": "north"}
    for _, action in route:
        assert names.get(action, action) in info["valid_actions"]
        assert not {read_command(valid) for valid in info["valid_actions"]} & {None}
        *_, info = env.step(action)
    again = env.reset(seed=0)[1]["valid_actions"]
    assert again == env.reset(seed=1)[1]["valid_actions"]
    env.close()


@plays
def test_the_watchdog_ends_a_command_that_hangs_the_interpreter():
    env = ProcessEnv(partial(LeftOpen, **GAME), Detective.spec, timeout_s=3.0)
    env.reset(seed=0)
    pid = env.pid
    assert env.step("take paper")[1] == 10.0
    observation, reward, terminated, truncated, info = env.step("showverb eight")
    assert (observation, reward, terminated, truncated) == (HUNG, 0.0, False, True)
    assert info["timed_out"]
    env.reset(seed=0)
    assert env.pid != pid
    env.close()
