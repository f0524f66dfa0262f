"""Exact action values, against a full search with the real environment and against closed forms."""

from __future__ import annotations

from copy import deepcopy

import pytest

import envs
from envs import EnvArgumentError, EnvError, EnvSpec, EnvStateError, ExactValues, TimeLimit, exact_values
from envs.key_door import MAX_TURNS

GAMMA = 0.9


def searched(env, actions, depth: int) -> dict[str, float]:
    """Return the value of each action at the state of `env`, by trying all sequences of `depth` actions.

    A sequence that does not end the task counts 0 for what follows.
    """
    found = {}
    for action in actions:
        copy = deepcopy(env)
        _, reward, terminated, _, info = copy.step(action)
        ahead = 0.0 if terminated or depth == 1 else max(searched(copy, info["valid_actions"], depth - 1).values())
        found[action] = reward + GAMMA * ahead
    return found


def of_turns(n: int, last: float) -> float:
    """Return the value of n turns that cost 1, but for the last one, whose reward is `last`."""
    return -(1 - GAMMA ** (n - 1)) / (1 - GAMMA) + GAMMA ** (n - 1) * last


def test_key_door_has_the_values_of_a_full_search_at_every_state_of_an_episode():
    kwargs = {"size": 2}
    exact = exact_values("key_door", kwargs, GAMMA)
    assert exact is not None
    for seed in range(2):
        env = envs.make("key_door", **kwargs)
        (episode,) = envs.demonstrate("key_door", episodes=1, skill=0.0, seed=seed, **kwargs)
        _, info = env.reset(seed=seed)
        found = exact.along(seed, episode.actions)
        assert len(found) == len(episode.actions) + (not episode.terminated)
        for action, values in list(zip(episode.actions, found, strict=False))[:3]:
            assert values == pytest.approx(searched(env, info["valid_actions"], 6), abs=1e-9)
            _, _, _, _, info = env.step(action)


def test_text_nav_has_the_values_of_a_full_search_near_the_solution():
    exact = exact_values("text_nav", {}, GAMMA)
    assert exact is not None
    for seed in range(3):
        (episode,) = envs.demonstrate("text_nav", episodes=1, skill=1.0, seed=seed)
        env = envs.make("text_nav")
        env.reset(seed=seed)
        before = episode.actions[:-2]
        for action in before:
            _, _, _, _, info = env.step(action)
        values = exact.along(seed, before)[-1]
        assert set(values) == set(info["valid_actions"])
        for action, value in searched(env, info["valid_actions"], 4).items():
            # Without a solution within four turns the value is that of a fifth turn at most.
            assert values[action] == pytest.approx(value) if value else values[action] <= GAMMA**4 + 1e-12


@pytest.mark.parametrize(
    ("env_id", "kwargs", "last"),
    [
        ("key_door", {"maps": 4}, 1.0),
        ("maze", {}, 0.0),
        ("maze", {"seeded": True, "observe": "partial"}, 0.0),
        ("text_nav", {"observe": "partial"}, None),
    ],
)
def test_the_best_play_has_the_value_of_its_length_and_its_actions_are_the_best(env_id, kwargs, last):
    exact = exact_values(env_id, kwargs, GAMMA)
    assert exact is not None
    for episode in envs.demonstrate(env_id, episodes=4, skill=1.0, seed=40, **kwargs):
        left = len(episode.actions)
        assert episode.success
        for action, values in zip(episode.actions, exact.along(episode.seed, episode.actions), strict=True):
            expected = GAMMA ** (left - 1) if last is None else of_turns(left, last)
            assert max(values.values()) == pytest.approx(expected)
            assert values[action] == pytest.approx(expected)
            left -= 1


def test_the_time_limit_ends_no_task():
    exact = exact_values("key_door", {}, GAMMA)
    assert exact is not None
    found = exact.along(5, ["dance"] * MAX_TURNS)
    assert found == [found[0]] * (MAX_TURNS + 1)
    assert exact.along(5, ["move up"] * MAX_TURNS, [0, 2]) == exact.along(5, ["move up"] * MAX_TURNS)[0:3:2]
    with pytest.raises(EnvStateError, match="has ended"):
        exact.along(5, ["dance"] * (MAX_TURNS + 1))


def test_values_of_other_maps_are_dropped_when_there_are_too_many(monkeypatch):
    exact = exact_values("key_door", {}, GAMMA)
    assert exact is not None
    first = exact.along(0, [])
    monkeypatch.setattr("envs.exact._MOST_VALUES", 1)
    exact.along(1, [])
    assert exact.along(0, []) == first


def test_environments_without_exact_values_have_none_and_a_wrong_discount_is_refused():
    assert exact_values("wordle", {}, GAMMA) is None
    with pytest.raises(EnvArgumentError, match="gamma is 0, must be above 0"):
        exact_values("key_door", {}, 0)


class Treadmill:
    """One state that costs 1 a turn for ever."""

    spec = EnvSpec(id="treadmill", description="No end.", max_turns=3, reward_range=(-3.0, 0.0))

    def reset(self, *, seed, options=None):
        return "Walk.", self.restore({})

    def step(self, action):
        return "Walk on.", -1.0, False, False, self.restore({})

    def restore(self, privileged):
        return {"privileged": privileged, "valid_actions": ["walk"]}

    def value_key(self, privileged):
        return 0

    def close(self):
        pass


def test_values_that_do_not_converge_are_refused():
    env = Treadmill()
    assert ExactValues(TimeLimit(env), env, GAMMA).along(0, []) == [{"walk": pytest.approx(-1 / (1 - GAMMA))}]
    with pytest.raises(EnvError, match=r"treadmill: values still change by 1 .* need a gamma below 1"):
        ExactValues(TimeLimit(env), env, 1.0).along(0, [])
