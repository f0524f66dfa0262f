"""The border to the code of environments: checks and normalises what `reset` and `step` return.

A wrong value raises EnvFailedError, which names the environment, the method, the turn and the value. So the episode
ends there, and not in the tokenizer, the replay or the learner.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn, cast

from envs.base import INVALID_ACTION, PRIVILEGED, SUCCESS, TASK_ID, Info, Message, Observation, Step
from envs.errors import EnvFailedError

_SHOWN = 80
"""Most characters of a value in an error."""
MAX_CHARACTERS = 1 << 24
"""Longest text of an observation, in characters: a context of a million tokens has a quarter of it."""
LARGEST_REWARD = 3.4028234e38
"""The largest number of 32 bits, in which episodes hold rewards."""
_FORMS = "return text, or a list of messages {'role': ..., 'content': ...}"


def checked_reset(result: Any, env: str) -> tuple[Observation, Info]:
    """Return what `reset` of the environment `env` returned, as observation and info. Raises EnvFailedError."""
    where = f"reset of {env}"
    if not isinstance(result, tuple) or len(result) != 2:
        _refuse(where, "the result", result, "return (observation, info)")
    return _observation(result[0], where), _info(result[1], where)


def checked_step(result: Any, env: str, turn: int) -> Step:
    """Return what `step` of the environment `env` returned in turn `turn`, counted from 1. Raises EnvFailedError."""
    where = f"step of {env}, turn {turn}"
    if not isinstance(result, tuple) or len(result) != 5:
        _refuse(where, "the result", result, "return (observation, reward, terminated, truncated, info)")
    observation, reward, terminated, truncated, info = result
    return (
        _observation(observation, where),
        _reward(reward, where),
        _flag(terminated, "terminated", where),
        _flag(truncated, "truncated", where),
        _info(info, where),
    )


def _observation(value: Any, where: str) -> Observation:
    if isinstance(value, str):
        return _text(value, "the observation", where)
    if not isinstance(value, (list, tuple)):
        _refuse(where, "the observation", value, _FORMS)
    return [_message(message, number, where) for number, message in enumerate(value)]


def _message(value: Any, number: int, where: str) -> Message:
    what = f"message {number} of the observation"
    if not isinstance(value, Mapping) or not isinstance(value.get("role"), str) or "content" not in value:
        _refuse(where, what, value, _FORMS)
    role, content = _text(value["role"], f"the role of {what}", where), value["content"]
    if isinstance(content, str):
        content = _text(content, what, where)
    elif isinstance(content, (list, tuple)):
        # As in vLLM's server, each part is a line.
        content = "\n".join(_part(part, f"part {i} of {what}", where) for i, part in enumerate(content))
    else:
        _refuse(where, f"the content of {what}", content, "return text, or a list of text parts")
    return cast(Message, {**value, "role": role, "content": content})


def _part(value: Any, what: str, where: str) -> str:
    if isinstance(value, Mapping) and value.get("type") == "text":
        value = value.get("text")
    if not isinstance(value, str):
        _refuse(where, what, value, "only parts of text are understood: {'type': 'text', 'text': ...}")
    return _text(value, what, where)


def _text(value: str, what: str, where: str) -> str:
    if type(value) is not str:
        value = str.__str__(value)  # a subclass may do otherwise than text does
    if len(value) > MAX_CHARACTERS:
        _refuse(where, what, value[:_SHOWN], f"it has {len(value):,} characters; return at most {MAX_CHARACTERS:,}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        around = value[max(0, error.start - 20) : error.end + 20]
        _refuse(where, what, around, f"character {error.start} is half of a surrogate pair, which no text may contain")
    return value


def _reward(value: Any, where: str) -> float:
    try:
        number = float(value) if not isinstance(value, (str, bytes)) else math.nan
    except Exception:  # noqa: BLE001  foreign types convert as they like: RuntimeError of a tensor, OverflowError
        number = math.nan
    if not abs(number) <= LARGEST_REWARD:
        _refuse(where, "the reward", value, "return a finite number of 32 bits")
    return number


def _flag(value: Any, what: str, where: str) -> bool:
    try:
        if value in (False, True):
            return bool(value)
    except Exception:  # noqa: BLE001  foreign types compare as they like
        pass
    _refuse(where, what, value, "return True or False")


def _info(value: Any, where: str) -> Info:
    if not isinstance(value, Mapping):
        _refuse(where, "info", value, "return a dictionary")
    found = dict(value)
    if TASK_ID in found:
        found[TASK_ID] = _text(str(found[TASK_ID]), f"info[{TASK_ID!r}]", where)
    if found.get(SUCCESS) is not None:
        found[SUCCESS] = _flag(found[SUCCESS], f"info[{SUCCESS!r}]", where)
    if found.get(INVALID_ACTION) is not None:
        found[INVALID_ACTION] = _flag(found[INVALID_ACTION], f"info[{INVALID_ACTION!r}]", where)
    if PRIVILEGED in found:
        found[PRIVILEGED] = _dictionary(found[PRIVILEGED], f"info[{PRIVILEGED!r}]", where)
    return found


def _dictionary(value: Any, what: str, where: str) -> dict[Any, Any]:
    try:
        if isinstance(value, Mapping):
            return dict(value)
    except Exception:  # noqa: BLE001  foreign types list their keys as they like
        pass
    _refuse(where, what, value, "return a dictionary")


def _refuse(where: str, what: str, value: Any, remedy: str) -> NoReturn:
    try:
        shown = ascii(value)
    except Exception as error:  # noqa: BLE001  foreign types print as they like
        shown = f"a value whose repr raises {type(error).__name__}"
    shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."
    raise EnvFailedError(f"{where}: {what} is {shown} ({type(value).__name__}); {remedy}")
