"""The adventure: village, commands, endings and demonstrator. Rules of all environments are in test_envs_rules."""

from __future__ import annotations

import pytest
from rules import check_any_string_is_an_action

import envs
from envs import EnvArgumentError
from envs.text_adventure import draw_world
from envs.text_adventure.commands import read_command, write_command
from envs.text_adventure.demonstrator import best_command
from envs.text_adventure.game import MAX_TURNS
from envs.text_adventure.texts import DARKNESS, INVALID, NO_WAY, WON
from envs.text_adventure.world import CARRIED, DIRECTIONS, KEY, POINTS, ROOMS, SPOTS, WRONG_PULLS, World

OPPOSITE = dict(zip(DIRECTIONS, ("south", "west", "north", "east", "down", "up"), strict=True))

FIRST = (
    "Somewhere under this village lies a cup. Find it. You can go, look, take, drop, give, talk, read, unlock, light "
    "and pull. Harbour. Boats knock against the quay. Exits: south, west."
)
INN = "Inn. A low room with a fire, and steps down behind the bar."
EPISODE = [
    ("sing", INVALID, 0),
    ("go north", NO_WAY, 0),
    ("inventory", "You carry: nothing.", 0),
    ("w", "Square. A dry well stands amid the houses. You see: fish. Exits: north, east, south, west. [+5 points]", 5),
    ("get the fish", "You take the fish.", 0),
    (
        "south",
        f"{INN} Edvard is here. Exits: north, down. [+5 points]",
        5,
    ),
    ("offer the fish to Edvard", '"What would I do with that?"', 0),
    ("ask edvard", 'Edvard says: "Bring me my hat and you get the key of the lighthouse." [+10 points]', 10),
    ("down", DARKNESS + " [+15 points]", 15),
    ("take crown", DARKNESS, 0),
    ("go north", NO_WAY, 0),
    ("go east", "You step into nothing and fall. You are dead.", 0),
]


def outcome(env, action):
    observation, reward, terminated, truncated, info = env.step(action)
    return observation, reward, terminated, truncated, info["success"]


def test_an_episode_word_by_word_that_ends_in_the_dark():
    env = envs.make("text_adventure")
    assert env.reset(seed=3)[0] == FIRST
    for action, expected, points in EPISODE:
        assert outcome(env, action) == (expected, float(points), "dead" in expected, False, False)


def test_the_demonstrator_gains_every_point_of_every_village_in_time():
    for played in envs.demonstrate("text_adventure", episodes=300, skill=1.0, seed=0):
        assert (played.ret, played.success, played.terminated) == (350.0, True, True)
        assert played.observations[-1].endswith(f"{WON} [+70 points]")
        assert len(played.actions) <= MAX_TURNS - 10
    assert sum(POINTS.values()) == 350


def test_the_third_wrong_lever_is_death():
    env = envs.make("text_adventure", max_turns=100)
    _, info = env.reset(seed=0)
    world = info["privileged"]["world"]
    while world.room != "grotto":
        *_, info = env.step(write_command(best_command(world), world.person))
        world = info["privileged"]["world"]
    wrong = f"pull {world.levers[2]}"
    assert outcome(env, wrong)[0] == "Stones fall from the roof, and all levers spring back. It bears 1 more."
    assert outcome(env, wrong)[0].endswith("It bears 0 more.")
    assert WRONG_PULLS == 3
    assert outcome(env, wrong) == ("The roof comes down on you. You are dead.", 0.0, True, False, False)


def test_levers_pay_once_and_a_wrong_one_resets_them():
    world = in_room("grotto", lit=True)
    first, second, third = world.levers
    assert [world.do(("pull", lever)) for lever in (first, second, first)] == [10, 10, 0]
    assert (world.pulled, world.wrong, world.is_shut("vault")) == (0, 1, True)
    assert [world.do(("pull", lever)) for lever in (first, second, third)] == [0, 0, 10]
    assert not world.is_shut("vault")


def in_room(room: str, *, lit: bool = False, carried: tuple[str, ...] = ()) -> World:
    world = draw_world(0)
    world.room, world.lit = room, lit
    world.places |= dict.fromkeys((world.light, *carried), CARRIED)
    return world


def test_doors_and_darkness_limit_the_possible_commands():
    world = in_room("cliff")
    tower = next(way for way, room in world.ways["cliff"].items() if room == "tower")
    assert ("go", tower) not in world.possible()
    assert ("unlock",) not in world.possible()
    world.places[KEY] = CARRIED
    world.do(("unlock",))
    assert ("go", tower) in world.possible()
    cellar = in_room("cellar")
    assert {command[0] for command in cellar.possible()} == {"go", "light"}
    cellar.do(("light", cellar.light))
    assert ("drop", cellar.light) in cellar.possible()
    cellar.do(("drop", cellar.light))
    assert not cellar.dark, "a light on the ground is a light"


def test_the_turn_limit_truncates():
    env = envs.make("text_adventure")
    env.reset(seed=0)
    steps = [env.step("look") for _ in range(MAX_TURNS)]
    assert [step[2:4] for step in steps] == [(False, False)] * (MAX_TURNS - 1) + [(False, True)]


def test_villages_differ_and_are_sound():
    worlds = [draw_world(seed) for seed in range(300)]
    for world in worlds:
        assert set(world.ways) == set(ROOMS)
        for room, exits in world.ways.items():
            for way, there in exits.items():
                assert world.ways[there][OPPOSITE[way]] == room
        lying = [place for place in world.places.values() if place in SPOTS]
        assert len(lying) == len(set(lying)) == 5
        assert world.places[world.light] in SPOTS
        assert world.places[world.wish] in SPOTS
        assert len(set(world.levers)) == 3
    assert len({str(world.ways) for world in worlds}) == 8
    assert len({(w.person, w.wish, w.light, w.treasure, w.levers, str(w.places)) for w in worlds}) > 290


def test_a_number_of_worlds_repeats_them():
    env = envs.make("text_adventure", worlds=2)
    first, again, other = (env.reset(seed=seed)[0] for seed in (4, 6, 5))
    assert first == again != other
    with pytest.raises(EnvArgumentError, match="worlds is 0"):
        envs.make("text_adventure", worlds=0)


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("n", ("go", "north")),
        ("Walk to the North.", ("go", "north")),
        ("climb up", ("go", "up")),
        ("pick up the lamp", ("take", "lamp")),
        ("turn on lamp", ("light", "lamp")),
        ("give Marta the pipe", ("give", "pipe")),
        ("hand pipe to marta", ("give", "pipe")),
        ("speak with Ines", ("talk",)),
        ("open the door with my key", ("unlock",)),
        ("read the log", ("read",)),
        ("push the red lever", ("pull", "red")),
        ("look around", ("look",)),
        ("i", ("inventory",)),
        ("", None),
        ("take", None),
        ("go lamp", None),
        ("take lamp and pipe", None),
        ("talk to the saint", None),
        ("pull", None),
    ],
)
def test_wordings_of_a_command(text, command):
    assert read_command(text) == command


def test_every_possible_command_is_parsed_back():
    for played in range(20):
        env = envs.make("text_adventure")
        _, info = env.reset(seed=played)
        for _ in range(30):
            world = info["privileged"]["world"]
            assert [read_command(action) for action in info["valid_actions"]] == world.possible()
            _, _, terminated, _, info = env.step(write_command(best_command(world), world.person))
            if terminated:
                break


def test_ten_thousand_strings():
    words = ["take", "lamp", "n", "s", "e", "w", "down", "pull", "red", "talk", "give", "pipe", "Ruth", "light", "up"]
    check_any_string_is_an_action("text_adventure", words, turns=10_000)
