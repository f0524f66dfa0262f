"""The maze: its rules, its observation modes and its demonstrator. Rules of all environments are in test_envs_rules."""

from __future__ import annotations

import random

import pytest

import envs
from envs import EnvArgumentError
from envs.maze import DRAWING, GOAL, INVALID, REACHED, WALL, draw_layout, draw_maze, fixed_grid

FIRST_FULL = (
    "Find the goal. Move up, down, left or right. "
    "The goal is in row 8 column 7. You are in row 4 column 9. Walls up, right."
)
FULL = [
    ("move up", "You hit a wall."),
    ("move left", "Row 4 column 8. Walls up, down."),
    ("move left", "Row 4 column 7. Walls left."),
    ("move down", "Row 5 column 7. Walls left, right."),
    ("jump", "Invalid action."),
    ("move down", "Row 6 column 7. Walls right."),
    ("move down", "Row 7 column 7. Walls left."),
    ("move down", "You reached the goal."),
]
FIRST_PARTIAL = "Find the goal. Move up, down, left or right. Walls up, right."
PARTIAL = [
    ("move up", "You hit a wall."),
    ("move left", "Walls up, down."),
    ("move left", "Walls left."),
    ("move down", "Walls left, right."),
    ("jump", "Invalid action."),
    ("move down", "Walls right."),
    ("move down", "Walls left."),
    ("move down", "You reached the goal."),
]


@pytest.mark.parametrize(
    ("observe", "first", "golden"), [("full", FIRST_FULL, FULL), ("partial", FIRST_PARTIAL, PARTIAL)]
)
def test_an_episode_word_by_word(observe, first, golden):
    env = envs.make("maze", observe=observe)
    assert env.reset(seed=0)[0] == first
    for action, expected in golden:
        observation, reward, terminated, truncated, info = env.step(action)
        assert observation == expected
        assert reward == (0.0 if expected == REACHED else -1.0)
        assert terminated == info["success"] == (expected == REACHED)
        assert not truncated


def test_a_hundred_turns_without_the_goal_are_truncated():
    env = envs.make("maze")
    env.reset(seed=0)
    steps = [env.step("move up") for _ in range(100)]
    assert [step[3] for step in steps] == [False] * 99 + [True]
    assert not any(step[2] for step in steps)
    assert sum(step[1] for step in steps) == -100.0 == env.spec.reward_range[0]
    assert steps[-1][4]["success"] is False


def test_the_fixed_maze_is_as_drawn():
    grid = fixed_grid()
    assert (len(DRAWING), {len(line) for line in DRAWING}) == (10, {13})
    assert set("".join(DRAWING)) == {"#", "."}
    assert len(grid.distances(GOAL)) == len(grid.exits) == "".join(DRAWING).count(".")
    mirrored = {(row, 12 - column) for row, column in grid.exits}
    assert mirrored == set(grid.exits)
    turns = [turns for cell, turns in grid.distances(GOAL).items() if cell != GOAL]
    assert sum(turns) / len(turns) == pytest.approx(7.45, abs=0.01)


def test_starts_are_spread_and_never_the_goal():
    starts = [draw_layout(seed, seeded=False).start for seed in range(2000)]
    assert set(starts) == set(fixed_grid().exits) - {GOAL}
    assert max(starts.count(start) for start in set(starts)) < 2 * 2000 / 53


def test_generated_mazes_are_connected_and_differ():
    drawn = [draw_maze(random.Random(seed)) for seed in range(100)]
    assert len({str(sorted(grid.exits)) for grid in drawn}) == 100
    for grid in drawn:
        assert len(grid.distances(next(iter(grid.exits)))) == len(grid.exits)
        assert {1, 7} == {min(r for r, _ in grid.exits), max(r for r, _ in grid.exits)}
        assert {1, 11} == {min(c for _, c in grid.exits), max(c for _, c in grid.exits)}
        # Corridors are one cell wide, so no four cells form an open square.
        assert not any({(r, c), (r + 1, c), (r, c + 1), (r + 1, c + 1)} <= set(grid.exits) for r, c in grid.exits)
    goals = {draw_layout(seed, seeded=True).goal for seed in range(100)}
    assert len(goals) > 30


@pytest.mark.parametrize("seeded", [False, True])
def test_the_best_play_takes_the_shortest_way(seeded):
    for episode in envs.demonstrate("maze", episodes=100, skill=1.0, seed=0, seeded=seeded):
        layout = draw_layout(episode.seed, seeded=seeded)
        assert episode.success
        assert episode.ret == 1 - layout.grid.distances(layout.goal)[layout.start]


def test_partial_observation_contains_walls_only():
    for episode in envs.demonstrate("maze", episodes=20, skill=0.3, seed=0, observe="partial"):
        assert not any("row" in text.lower() for text in episode.observations)
    both = [
        list(envs.demonstrate("maze", episodes=5, skill=0.3, seed=0, observe=observe))
        for observe in ("full", "partial")
    ]
    for full, partial in zip(*both, strict=True):
        assert full.actions == partial.actions
        assert all(a.endswith(b) for a, b in zip(full.observations[1:], partial.observations[1:], strict=True))


@pytest.mark.parametrize("action", ["", "north", "move", "move diagonally", "MOVE UP NOW", "move up\x00", "up" * 9999])
@pytest.mark.parametrize("compat", [False, True])
def test_an_invalid_action_costs_one_and_with_compat_four(action, compat):
    env = envs.make("maze", compat=compat)
    env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(action)
    assert (observation, reward, terminated, truncated) == (INVALID, -4.0 if compat else -1.0, False, False)
    assert info["invalid_action"] is True
    assert env.step("move up")[:2] == (WALL, -1.0)


def test_bad_arguments():
    with pytest.raises(EnvArgumentError, match=r"observe is 'fully', must be one of \('full', 'partial'\)"):
        envs.make("maze", observe="fully")


def test_returns_by_skill():
    rows = envs.returns_by_skill("maze", [0.0, 0.5, 1.0], episodes=200)
    for row, (low, high) in zip(rows, [(-97.0, -85.0), (-18.5, -14.0), (-7.3, -5.7)], strict=True):
        assert low < row.mean < high, row
