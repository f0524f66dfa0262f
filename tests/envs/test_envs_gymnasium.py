"""Gymnasium: its environments here, and environments of this project there."""

from __future__ import annotations

import asyncio
import warnings

import pytest

gymnasium = pytest.importorskip("gymnasium", reason="needs the extra gymnasium: make install")

from gymnasium.utils.env_checker import check_env  # noqa: E402

import envs  # noqa: E402
from envs import EnvArgumentError, EnvError  # noqa: E402
from envs.adapters.gymnasium_served import ServedEnv, gymnasium_id, register_all  # noqa: E402


def plain_ids() -> list[str]:
    """Return the environments that need neither an argument nor an extra nor a server."""
    found = []
    for spec in envs.specs():
        try:
            envs.check(spec.id)
        except EnvError:
            continue
        found += [spec.id] if spec.extra is None and spec.isolation == "inline" else []
    return found


def theirs(gym_id: str, **kwargs):
    return envs.make("gymnasium", gym_id=f"gym_cases:{gym_id}", **kwargs)


# Environments of Gymnasium here.


def test_text_is_passed_unchanged():
    env = theirs("Echo-v0")
    observation, info = env.reset(seed=3, options={"a": 1})
    assert observation == "seed 3 options {'a': 1}"
    assert info["task_id"] == "gym_cases:Echo-v0"
    assert env.step("hello")[:4] == ("hello", 1.0, False, False)
    observation, reward, terminated, truncated, info = env.step("end")
    assert (observation, reward, terminated, truncated, info["success"]) == ("end", 1.0, True, False, True)


def test_an_action_outside_the_space_costs_a_turn_and_no_step():
    env = theirs("Cutting-v0")
    env.reset(seed=0)
    for text in ("", "Ä", "longer than ten"):
        observation, reward, terminated, truncated, info = env.step(text)
        assert (observation, reward, terminated, truncated) == ("Not a possible action.", 0.0, False, False)
        assert info["invalid_action"] is True
    assert env.step("a")[3] is False
    assert env.step("a")[2:4] == (False, True)


def test_both_time_limits_apply():
    env = theirs("Limited-v0")
    assert env.spec.max_turns == 4
    env.reset(seed=0)
    assert [env.step("a")[3] for _ in range(4)] == [False, False, False, True]
    env = theirs("Limited-v0", max_turns=3)
    env.reset(seed=0)
    assert [env.step("a")[3] for _ in range(3)] == [False, False, True]
    env = theirs("Limited-v0", max_turns=9)
    env.reset(seed=0)
    assert [env.step("a")[3] for _ in range(4)] == [False, False, False, True]
    assert theirs("Echo-v0").spec.max_turns == 1000


def test_discrete_actions_are_named_by_number_or_name():
    names = ["left", "down", "right", "up"]
    env = envs.make(
        "gymnasium", gym_id="FrozenLake-v1", gym_kwargs={"is_slippery": False}, action_names=names, max_turns=50
    )
    observation, info = env.reset(seed=0)
    assert observation == "Actions: left, down, right, up.\n0"
    assert info["valid_actions"] == names
    assert [env.step(text)[0] for text in ("right", "Right.", " 1 ", "jump", "4", "2.0")] == [
        "1",
        "2",
        "6",
        *["Not a possible action."] * 3,
    ]
    assert envs.make("gymnasium", gym_id="FrozenLake-v1").reset(seed=0)[0] == "Actions: 0, 1, 2, 3.\n0"


def test_numbers_are_described_and_user_functions_are_called():
    env = theirs("Mixed-v0", actions="gym_cases:to_vector")
    assert env.reset(seed=0)[0] == "at: 0 0.333; card: 2; hand: 1 0 1; 3 0"
    assert env.step("0.5")[0] == "at: 0.5 0.333; card: 2; hand: 1 0 1; 3 0"
    assert env.step("half")[4]["invalid_action"]
    assert theirs("Vast-v0", actions="gym_cases:to_vector").reset(seed=0)[0] == "100000000000"
    env = theirs("Mixed-v0", actions="gym_cases:to_vector", observe="gym_cases:at_only")
    env.reset(seed=0)
    assert env.step("-1")[0] == "Mixed at -1.0"


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({}, "gymnasium needs the argument 'gym_id'"),
        ({"gym_id": "Nowhere-v0"}, "Nowhere-v0 cannot be made"),
        ({"gym_id": "no_such_module:Env-v0"}, "cannot be made: No module named 'no_such_module'"),
        ({"gym_id": "CartPole-v1", "gym_kwargs": {"speed": 9}}, "cannot be made: .*speed"),
        (
            {"gym_id": "gym_cases:Mixed-v0"},
            "actions of Box, which have no default words: .* actions=module:function",
        ),
        ({"gym_id": "gym_cases:Vast-v0"}, "1000000000000 actions, more than 1000: .* actions=module:function"),
        ({"gym_id": "gym_cases:Picture-v0"}, "have no default text: .* observe=module:function"),
        ({"gym_id": "CartPole-v1", "action_names": ["left"]}, "must be 2 different words"),
        ({"gym_id": "CartPole-v1", "actions": "gym_cases"}, "actions: 'gym_cases' is not of the form module:name"),
        ({"gym_id": "CartPole-v1", "actions": "no_such_module:read"}, "no module named 'no_such_module'"),
        (
            {"gym_id": "CartPole-v1", "observe": "gym_cases:at_onyl"},
            "no class or function 'at_onyl': did you mean 'at_only'",
        ),
    ],
)
def test_wrong_arguments_are_reported(kwargs, says):
    with pytest.raises(EnvArgumentError, match=says):
        envs.make("gymnasium", **kwargs)


def test_the_same_seed_gives_the_same_episode():
    def play(seed):
        env = envs.make("gymnasium", gym_id="CartPole-v1")
        first = env.reset(seed=seed)[0]
        return [first, *(env.step(str(turn % 2))[:4] for turn in range(8))]

    assert play(5) == play(5)
    assert play(5) != play(6)


def test_it_runs_on_a_thread():
    async def play():
        env = envs.AsyncEnv(envs.make("gymnasium", gym_id="CartPole-v1"))
        await env.areset(seed=0)
        result = await env.astep("1")
        await env.aclose()
        return result

    assert asyncio.run(play())[1] == 1.0


# Environments of this project in Gymnasium.


@pytest.mark.parametrize("env_id", plain_ids())
def test_gymnasiums_check_env_passes(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(gymnasium_id(env_id)).unwrapped)


def test_the_episode_equals_the_unwrapped_one():
    direct, served = envs.make("text_nav"), gymnasium.make("archer/TextNav-v0")
    observation, info = served.reset(seed=7)
    assert observation == direct.reset(seed=7)[0]
    assert "privileged" not in info
    for _ in range(30):
        action = info["valid_actions"][-1]
        seen, (*expected, _) = served.step(action), direct.step(action)
        assert list(seen[:4]) == expected
        info = seen[4]
        if seen[2] or seen[3]:
            break
    assert seen[2] or seen[3]


def test_gymnasium_make_takes_module_id_arguments_and_time_limit():
    env = gymnasium.make("envs.adapters.gymnasium_served:archer/KeyDoor-v0", size=2, max_turns=3, render_mode="ansi")
    observation, _ = env.reset(seed=0)
    assert env.render() == observation
    assert [env.step("Ж")[3] for _ in range(3)] == [False, False, True]


def test_without_a_seed_episodes_continue_from_the_last_seed():
    def play():
        env = ServedEnv("key_door")
        return [env.reset(seed=1)[0], *(env.reset()[0] for _ in range(3))]

    assert play() == play()
    assert len(set(play())) > 1


def test_registering_all_twice_is_harmless():
    assert register_all() == register_all()
    assert {gymnasium_id(spec.id) for spec in envs.specs()} - set(register_all()) == {"archer/Gymnasium-v0"}


def test_chat_messages_become_lines_of_text():
    env = ServedEnv("gym_chat:Chat")
    assert env.reset(seed=0)[0] == "system: Be kind.\nuser: Hello."
