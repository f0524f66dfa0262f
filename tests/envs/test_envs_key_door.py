"""Key and door: its rules, its maps and its demonstrator. Rules of all environments are in test_envs_rules."""

from __future__ import annotations

import pytest

import envs
from envs import EnvArgumentError
from envs.key_door import FOUND, GOAL, INVALID, LOCKED, OPENED, WALL, KeyDoorDemonstrator, draw_layout
from envs.toolkit.grids import DIRECTIONS

GOLDEN_FIRST = (
    "Find the key, then open the door. Move up, down, left or right. "
    "Key in row 1 column 1. Door in row 2 column 1. You are in row 4 column 1. Walls down, left."
)
GOLDEN = [
    ("move down", "You hit a wall."),
    ("dance", "Invalid action."),
    ("move up", "Row 3 column 1. Walls up, left."),
    ("move right", "Row 3 column 2. No walls."),
    ("move up", "Row 2 column 2. Walls right."),
    ("move left", "The door is locked."),
    ("move up", "Row 1 column 2. Walls up."),
    ("move left", "You found the key. Row 1 column 1. Walls up, left."),
    ("move down", "You opened the door."),
]


def play(env, actions):
    """Return the steps of `actions`, as (observation, reward, terminated, truncated)."""
    return [env.step(action)[:4] for action in actions]


def test_an_episode_word_by_word():
    env = envs.make("key_door")
    observation, info = env.reset(seed=5)
    assert observation == GOLDEN_FIRST
    assert info["task_id"] == "map-5"
    assert play(env, [action for action, _ in GOLDEN]) == [
        (text, 1.0 if text == OPENED else -1.0, text == OPENED, False) for _, text in GOLDEN
    ]


def test_thirty_turns_without_the_key_are_truncated():
    env = envs.make("key_door")
    env.reset(seed=5)
    steps = [env.step("move down") for _ in range(30)]
    assert [step[3] for step in steps] == [False] * 29 + [True]
    assert not any(step[2] for step in steps)
    assert sum(step[1] for step in steps) == -30.0 == env.spec.reward_range[0]
    assert steps[-1][4]["success"] is False


@pytest.mark.parametrize("size", [2, 3, 4, 9])
def test_the_best_play_takes_the_shortest_way(size):
    for episode in envs.demonstrate("key_door", episodes=100, skill=1.0, seed=0, size=size, max_turns=200):
        layout = draw_layout(episode.seed, size)
        to_key = layout.grid.distances(layout.key, closed=[layout.door])[layout.start]
        turns = to_key + layout.grid.distances(layout.door)[layout.key]
        assert episode.success
        assert len(episode.actions) == turns
        assert episode.ret == 2 - turns


def test_maps_are_connected_and_differ():
    layouts = [draw_layout(seed, 4) for seed in range(300)]
    for layout in layouts:
        assert len({layout.start, layout.key, layout.door}) == 3
        assert len(layout.grid.distances(layout.start)) == 16
        for cell, ways in layout.grid.exits.items():
            for direction, after in ways.items():
                down, right = DIRECTIONS[direction]
                assert after == (cell[0] + down, cell[1] + right)
                assert cell in layout.grid.exits[after].values()
    assert len({str(layout.grid) for layout in layouts}) > 290
    assert len({(layout.start, layout.key, layout.door) for layout in layouts}) > 250
    inner = [24 - sum(len(ways) for ways in layout.grid.exits.values()) // 2 for layout in layouts]
    assert 4.0 < sum(inner) / len(inner) < 5.0


def test_the_door_opens_with_the_key_only():
    locked = 0
    for seed in range(200):
        layout = draw_layout(seed, 4)
        distances = layout.grid.distances(layout.door)
        env = envs.make("key_door")
        env.reset(seed=seed)
        here, has_key, text = layout.start, False, ""
        while not has_key and text != LOCKED:
            (action, *_) = layout.grid.moves_nearer(here, distances)
            text, _, terminated, _, info = env.step(action)
            here, has_key = info["privileged"]["position"], info["privileged"]["has_key"]
            assert not terminated
        locked += text == LOCKED
        if text == LOCKED:
            assert distances[here] == 1
    assert locked > 100


@pytest.mark.parametrize("action", ["move left", "left", "go left", " Move   LEFT. ", "walk left!", "step left"])
def test_wordings_of_a_move(action):
    env = envs.make("key_door")
    env.reset(seed=5)
    observation, _, _, _, info = env.step(action)
    assert observation == WALL
    assert info["invalid_action"] is False


@pytest.mark.parametrize(
    "action", ["", "move", "move left right", "leftmost", "pick up the key", "move left" * 9999, "上"]
)
def test_other_text_is_invalid_and_costs_a_turn(action):
    env = envs.make("key_door")
    _, before = env.reset(seed=5)
    observation, reward, terminated, truncated, info = env.step(action)
    assert (observation, reward, terminated, truncated) == (INVALID, -1.0, False, False)
    assert info["invalid_action"] is True
    assert info["privileged"] == before["privileged"]


def test_observations_are_short_and_hold_nothing_privileged():
    for episode in envs.demonstrate("key_door", episodes=50, skill=0.2, seed=0):
        first, *later = episode.observations
        assert first.startswith(GOAL)
        assert len(first.split()) < 40
        assert max(len(text.split()) for text in later) < 14
        assert sum(FOUND in text for text in later) <= 1


@pytest.mark.parametrize("size", [1, 10])
def test_bad_arguments(size):
    with pytest.raises(EnvArgumentError, match=f"size is {size}, must be from 2 to 9"):
        envs.make("key_door", size=size)


def test_returns_by_skill():
    rows = envs.returns_by_skill("key_door", [0.0, 0.3, 1.0], episodes=400)
    for row, (low, high) in zip(rows, [(-29.0, -26.0), (-20.0, -16.5), (-5.0, -4.0)], strict=True):
        assert low < row.mean < high, row


def test_the_demonstrator_tries_all_moves_at_skill_zero():
    walker = KeyDoorDemonstrator(skill=0.0)
    walker.begin("", envs.make("key_door").reset(seed=0)[1], seed=0)
    assert {walker.act() for _ in range(100)} == {f"move {direction}" for direction in DIRECTIONS}


def test_a_number_of_maps_repeats_them() -> None:
    env = envs.make("key_door", maps=3)
    firsts = [env.reset(seed=seed) for seed in range(6)]
    assert [observation for observation, _ in firsts[:3]] == [observation for observation, _ in firsts[3:]]
    assert len({info[envs.TASK_ID] for _, info in firsts}) == 3
    with pytest.raises(envs.EnvArgumentError, match="maps is 0"):
        envs.make("key_door", maps=0)
