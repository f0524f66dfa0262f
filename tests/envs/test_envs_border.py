"""Values that environments of others return: understood, or refused by environment, method, turn and value."""

import asyncio
import math
from typing import Any

import numpy as np
import pytest

from envs import AsyncEnv, EnvFailedError, EnvSpec, TimeLimit
from envs.border import MAX_CHARACTERS

GOOD: dict[str, Any] = {"observation": "Go on.", "reward": 1.0, "terminated": False, "truncated": False, "info": {}}


class Hostile:
    """Raises whatever is asked of it."""

    def _raise(self, *_: Any) -> Any:
        return 1 / 0

    __repr__ = __eq__ = __float__ = __bool__ = _raise  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]


class Shouting(str):
    """Text that is another one when it is asked."""

    def __str__(self) -> str:
        return "another"

    def encode(self, *_: Any) -> bytes:
        return b"another"


class Foreign:
    """Returns what it is given: `reset`'s result, then the results of steps."""

    spec = EnvSpec(id="foreign", description="Returns anything.", max_turns=9, reward_range=(0.0, 9.0))

    def __init__(self, reset: Any, *steps: Any) -> None:
        self._results = [reset, *steps]

    def reset(self, *, seed: int, options: Any = None) -> Any:
        return self._next()

    def step(self, action: str) -> Any:
        return self._next()

    def close(self) -> None:
        pass

    def _next(self) -> Any:
        result = self._results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


def _step(**changed: Any) -> Any:
    return tuple((GOOD | changed).values())


def _play(reset: Any, *steps: Any) -> list[Any]:
    async def play() -> list[Any]:
        env = AsyncEnv(TimeLimit(Foreign(reset, *steps)))
        return [await env.areset(seed=0), *[await env.astep("go") for _ in steps]]

    return asyncio.run(play())


def test_parts_of_text_and_numbers_of_other_libraries_are_understood() -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "One."}, "Two."], "name": "judge"}]
    (first, info), step = _play(
        (parts, {"task_id": 7}),
        _step(observation=tuple(parts), reward=np.float32(0.5), terminated=np.bool_(True), truncated=0),
    )
    expected = [{"role": "user", "content": "One.\nTwo.", "name": "judge"}]
    assert first == step[0] == expected
    assert info == {"task_id": "7"}
    assert step[1:4] == (0.5, True, False)
    assert [type(value) for value in step[1:4]] == [float, bool, bool]


@pytest.mark.parametrize(
    ("observation", "said"),
    [
        (None, r"observation is None \(NoneType\); return text, or a list of messages"),
        (42, r"observation is 42 \(int\)"),
        (b"bytes", r"observation is b'bytes' \(bytes\)"),
        ("half \ud83d a pair", r"observation is 'half \\ud83d a pair'.*character 5 is half of a surrogate pair"),
        (["text"], r"message 0 of the observation is 'text' \(str\)"),
        ([{"role": "user"}], r"message 0 of the observation is \{'role': 'user'\}"),
        ([{"role": "user", "content": None}], r"content of message 0 of the observation is None"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": "x.png"}]}],
            r"part 0 of message 0 of the observation is .*image_url.*only parts of text",
        ),
        ([{"role": "user", "content": [{"type": "text", "text": "\udc00"}]}], "surrogate"),
    ],
)
def test_a_wrong_observation_names_environment_method_turn_and_value(observation: Any, said: str) -> None:
    with pytest.raises(EnvFailedError, match=rf"^step of foreign, turn 2: .*{said}") as caught:
        _play(("Begin.", {}), _step(), _step(observation=observation))
    str(caught.value).encode()
    with pytest.raises(EnvFailedError, match=rf"^reset of foreign: .*{said}"):
        _play((observation, {}))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"reward": math.nan}, r"the reward is nan \(float\); return a finite number"),
        ({"reward": "1"}, "the reward is '1'"),
        ({"reward": None}, "the reward is None"),
        ({"terminated": None}, "terminated is None .*True or False"),
        ({"truncated": "no"}, "truncated is 'no'"),
        ({"info": None}, "info is None"),
        ({"info": {"task_id": "\ud800"}}, "task_id.*surrogate"),
        ({"reward": 1e39}, r"the reward is 1e\+39 .*32 bits"),
        ({"reward": 10**400}, "the reward is 1000"),
        ({"reward": Hostile()}, "the reward is a value whose repr raises ZeroDivisionError"),
        ({"terminated": Hostile()}, "terminated is a value whose repr raises"),
        ({"info": {"success": np.array([1, 2])}}, r"info\['success'\] is array"),
        ({"info": {"success": "yes"}}, r"info\['success'\] is 'yes' .*True or False"),
        ({"info": {"invalid_action": np.array([1, 2])}}, r"info\['invalid_action'\] is array"),
        ({"info": {"privileged": ["word"]}}, r"info\['privileged'\] is \['word'\] .*dictionary"),
        ({"observation": "a" * (MAX_CHARACTERS + 1)}, "it has 16,777,217 characters; return at most 16,777,216"),
    ],
)
def test_other_wrong_values_are_named_too(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(EnvFailedError, match=rf"^step of foreign, turn 1: .*{said}"):
        _play(("Begin.", {}), _step(**changed))


def test_results_of_another_length_are_named() -> None:
    with pytest.raises(EnvFailedError, match=r"turn 1: the result is .*return \(observation, reward, terminated"):
        _play(("Begin.", {}), ("On.", 0.0, False, {}))
    with pytest.raises(EnvFailedError, match=r"reset of foreign: the result is 'Begin\.'.*return \(observation, info"):
        _play("Begin.")


def test_an_error_of_the_environment_can_be_sent_and_printed_whatever_its_text() -> None:
    with pytest.raises(EnvFailedError, match=r"ValueError: no \\ud800") as caught:
        _play(("Begin.", {}), ValueError("no \ud800"))
    str(caught.value).encode()


def test_subclasses_of_text_become_text() -> None:
    (first, _), (second, *_) = _play(
        (Shouting("Begin."), {}), _step(observation=[{"role": "user", "content": Shouting("On.")}])
    )
    assert (type(first), first) == (str, "Begin.")
    assert isinstance(second, list)
    assert (type(second[0]["content"]), second[0]["content"]) == (str, "On.")
