"""Text-Nav: house, commands, observation modes and demonstrator. Rules of all environments are in test_envs_rules."""

from __future__ import annotations

from collections import deque

import pytest

import envs
from envs import EnvArgumentError
from envs.text_nav import House, draw_house
from envs.text_nav.commands import read_command, write_command
from envs.text_nav.demonstrator import best_command
from envs.text_nav.game import IMPOSSIBLE, INVALID, LOST, MAX_TURNS, NO_WAY, SHUT, SOLVED
from envs.text_nav.world import CONTAINERS, DOORS, FOOD, FURNITURE, ROOMS, THINGS, THINGS_AT_ONCE

OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}


def kitchen(**changes) -> House:
    """A house with the player in the kitchen, an apple in the closed fridge, a cup on the counter, and the task to put
    the apple into the cabinet.
    """
    things = {"room": "kitchen", "thing": "apple", "container": "cabinet"}
    return House(**(things | changes), places={"apple": "fridge", "cup": "counter"})


FIRST_FULL = (
    "Put the apple in the chest and close it. The apple is in the safe in the study. The chest is in the living room. "
    "You can go, open, close, take, put and eat. "
    "Study. You see: safe (closed), desk (bread, cheese, hat). Exits: west (closed)."
)
FULL = [
    ("go west", "The door is closed."),
    ("open safe", "You open the safe: apple."),
    ("take apple", "You take the apple."),
    ("sing", "Invalid command."),
    ("open door", "You open the door."),
    ("go west", "Living room. You see: chest (closed), sofa (empty). Exits: north, east, west."),
    ("put apple in chest", "The chest is closed."),
    ("open chest", "You open the chest: empty."),
    ("put apple in chest", "You put the apple in the chest."),
    ("close chest", "You close the chest. You solved the task."),
]
FIRST_PARTIAL = (
    "Put the apple in the chest and close it. You can go, open, close, take, put and eat. "
    "You see: safe (closed), desk (bread, cheese, hat). Exits: west (closed)."
)
PARTIAL = [
    ("go west", "The door is closed."),
    ("open safe", "You open the safe: apple."),
    ("take apple", "You take the apple."),
    ("sing", "Invalid command."),
    ("open door", "You open the door."),
    ("go west", "You see: chest (closed), sofa (empty). Exits: north, east, west."),
    ("put apple in chest", "The chest is closed."),
    ("open chest", "You open the chest: empty."),
    ("put apple in chest", "You put the apple in the chest."),
    ("close chest", "You close the chest. You solved the task."),
]


@pytest.mark.parametrize(
    ("observe", "first", "golden"), [("full", FIRST_FULL, FULL), ("partial", FIRST_PARTIAL, PARTIAL)]
)
def test_an_episode_word_by_word(observe, first, golden):
    env = envs.make("text_nav", observe=observe)
    assert env.reset(seed=2)[0] == first
    for action, expected in golden:
        observation, reward, terminated, truncated, info = env.step(action)
        assert observation == expected
        assert reward == terminated == info["success"] == (SOLVED in expected)
        assert not truncated


def test_eating_the_thing_loses():
    env = envs.make("text_nav")
    seed = next(seed for seed in range(100) if draw_house(seed).thing in FOOD)
    _, info = env.reset(seed=seed)
    while f"eat {draw_house(seed).thing}" not in info["valid_actions"]:
        *_, info = env.step(write_command(best_command(info["privileged"]["house"])))
    observation, reward, terminated, truncated, info = env.step(f"eat {draw_house(seed).thing}")
    assert observation.endswith(LOST)
    assert (reward, terminated, truncated, info["success"]) == (0.0, True, False, False)


def test_turns_without_a_solution_are_truncated():
    env = envs.make("text_nav")
    env.reset(seed=0)
    steps = [env.step("take key") for _ in range(MAX_TURNS)]
    assert [step[3] for step in steps] == [False] * (MAX_TURNS - 1) + [True]
    assert not any(step[2] for step in steps)
    assert {step[1] for step in steps} == {0.0}


def test_the_plan_of_the_house():
    assert len(ROOMS) == 8
    for room, exits in ROOMS.items():
        for direction, there in exits.items():
            assert ROOMS[there][OPPOSITE[direction]] == room
        assert sum(room in door for door in DOORS) <= 1
        assert room in FURNITURE.values()
    for door in DOORS:
        assert min(len(ROOMS[room]) for room in door) == 1, "a door must lead to a dead end"


def test_houses_are_sound_and_differ():
    houses = [draw_house(seed) for seed in range(500)]
    for house in houses:
        assert len(house.places) == THINGS_AT_ONCE
        assert set(house.places) <= set(THINGS)
        assert set(house.places.values()) <= set(FURNITURE)
        assert house.places[house.thing] != house.container
        assert not house.open & set(CONTAINERS)
        assert not house.solved
    assert {house.thing for house in houses} == set(THINGS)
    assert {house.container for house in houses} == set(CONTAINERS)
    assert {house.room for house in houses} == set(ROOMS)
    assert 0.4 < sum(len(house.open) for house in houses) / (500 * len(DOORS)) < 0.6


def test_possible_commands_follow_from_the_house():
    house = kitchen()
    ways = {("go", "east"), ("go", "south")}
    assert set(house.possible()) == {*ways, ("open", "door"), ("open", "fridge"), ("take", "cup")}
    house.do(("open", "fridge"))
    house.do(("open", "door"))
    house.do(("take", "cup"))
    assert set(house.possible()) == {
        *ways,
        ("go", "west"),
        ("close", "door"),
        ("close", "fridge"),
        ("take", "apple"),
        ("eat", "apple"),
        ("put", "cup", "fridge"),
        ("put", "cup", "counter"),
    }
    house.do(("go", "west"))
    assert house.room == "garden"
    house.do(("close", "door"))
    assert house.is_shut("east")
    assert not house.solved
    assert not house.lost


def test_the_task_is_solved_when_the_container_is_closed():
    house = kitchen(thing="cup", container="fridge")
    for command in [("open", "fridge"), ("take", "cup"), ("put", "cup", "fridge")]:
        house.do(command)
        assert not house.solved
    house.do(("close", "fridge"))
    assert house.solved


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("go north", ("go", "north")),
        ("Walk to the North.", ("go", "north")),
        ("open the door", ("open", "door")),
        ("shut  fridge!", ("close", "fridge")),
        ("take an apple from the fridge", ("take", "apple")),
        ("pick up the cup", ("take", "cup")),
        ("insert apple into fridge", ("put", "apple", "fridge")),
        ("put the cup on the table", ("put", "cup", "table")),
        ("eat bread", ("eat", "bread")),
    ],
)
def test_wordings_of_a_command(text, command):
    assert read_command(text) == command


def test_every_possible_command_is_parsed_back():
    for seed in range(50):
        house = draw_house(seed)
        for _ in range(10):
            assert [read_command(write_command(command)) for command in house.possible()] == house.possible()
            if not house.solved:
                house.do(best_command(house))


@pytest.mark.parametrize("action", ["", "go", "go up", "open sesame", "put apple", "take apple and cup", "open " * 999])
def test_other_text_is_invalid_and_costs_a_turn(action):
    env = envs.make("text_nav")
    _, before = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(action)
    assert (observation, reward, terminated, truncated) == (INVALID, 0.0, False, False)
    assert info["invalid_action"] is True
    assert info["privileged"] == before["privileged"]
    assert env.turn == 1


def test_an_impossible_command_is_answered_by_the_reason():
    seed = next(seed for seed in range(100) if draw_house(seed).room == "bedroom" and not draw_house(seed).open)
    env = envs.make("text_nav")
    _, before = env.reset(seed=seed)
    for action, says in [
        ("go west", NO_WAY),
        ("go east", SHUT),
        ("open fridge", IMPOSSIBLE),
        ("close door", IMPOSSIBLE),
    ]:
        observation, _, _, _, info = env.step(action)
        assert observation == says
        assert info["invalid_action"] is False
        assert info["privileged"] == before["privileged"]


def test_partial_observation_names_no_rooms():
    for game in envs.demonstrate("text_nav", episodes=20, skill=0.5, seed=0, observe="partial"):
        said = " ".join(game.observations).lower()
        assert not any(room in said for room in ROOMS)


def test_the_info_of_a_turn_does_not_change_later():
    env = envs.make("text_nav")
    _, info = env.reset(seed=0)
    house = info["privileged"]["house"]
    for _ in range(3):
        env.step(write_command(best_command(draw_house(0))))
    assert house == draw_house(0)


def shortest(house: House) -> int:
    """Return the turns of a shortest solution, by breadth-first search over the relevant commands."""
    bears = {"go", "open", "close", "take", "put"}
    furniture = {house.container, house.places[house.thing], "door"}
    queue, seen = deque([(house, 0)]), set()
    while True:
        now, turns = queue.popleft()
        if now.solved:
            return turns
        for command in now.possible():
            if command[0] not in bears or (command[0] in ("open", "close") and command[1] not in furniture):
                continue
            if command[0] in ("take", "put") and command[1] != house.thing:
                continue
            after = now.copy()
            after.do(command)
            state = (after.room, frozenset(after.open), after.places[house.thing])
            if state not in seen:
                seen.add(state)
                queue.append((after, turns + 1))


def test_the_best_play_takes_the_shortest_way():
    for game in envs.demonstrate("text_nav", episodes=12, skill=1.0, seed=0):
        assert game.success
        assert len(game.actions) == shortest(draw_house(game.seed))


def test_the_best_play_continues_from_any_state():
    for game in envs.demonstrate("text_nav", episodes=100, skill=0.5, seed=0, max_turns=200):
        eaten = f"eat {draw_house(game.seed).thing}" in game.actions
        assert game.terminated
        assert game.success != eaten


def test_bad_arguments():
    with pytest.raises(EnvArgumentError, match=r"observe is 'none', must be one of \('full', 'partial'\)"):
        envs.make("text_nav", observe="none")


def test_returns_by_skill():
    rows = envs.returns_by_skill("text_nav", [0.0, 0.5, 1.0], episodes=200)
    for row, (low, high) in zip(rows, [(0.0, 0.03), (0.54, 0.78), (1.0, 1.0)], strict=True):
        assert low <= row.mean <= high, row
