"""Conversations as LMRL-Gym (Abdulhai et al. 2023) writes them, played again before the environment itself.

A file is a JSON list (or lines) of {"conversation": ["question? answer", ...], "done": bool, "word": "paris,france"}.
Of each the questions and answers become an episode; what a turn is worth and whether it ends the game says the
environment, which is asked the same questions with the same word hidden.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import envs
from archer.errors import ConfigError
from archer.imports.tally import Tally

OPTIONS = {"guess_my_city": "city", "twenty_questions": "word", "twenty_questions_subset": "word"}
"""Environments whose episodes such a file can hold -> the reset option that hides a word."""

SHOWN = 60
"""Characters of a file that a message quotes."""


class Unfit(Exception):
    """An item can't be made an episode, for this reason; `found` is what it has instead."""

    def __init__(self, reason: str, found: object = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.found = found


class LmrlFormat:
    """Conversations of LMRL-Gym."""

    name = "lmrl"
    description = 'LMRL-Gym: JSON, a list of {"conversation": ["question? answer", ...], "done", "word"}'

    def env_of(self, path: Path) -> str:
        raise ConfigError(f"{path} does not say which environment its episodes are of; give --env")

    def read(self, path: Path, env: str, kwargs: Mapping[str, Any], tally: Tally) -> Iterator[envs.Demonstration]:
        if env not in OPTIONS:
            raise ConfigError(f"--format lmrl is for {', '.join(OPTIONS)}; {env} plays no conversations of that form")
        referee = _Referee(env, kwargs)
        seen: set[str] = set()
        for number, item in enumerate(read_items(path, tally)):
            where = f"conversation {number}"
            tally.read += 1
            try:
                turns, done, word = _parts(item)
                key = json.dumps([turns, word])
                if key in seen:
                    raise Unfit("a duplicate of an earlier one")
                seen.add(key)
                episode = referee.judge(number, turns, done, word)
            except Unfit as error:
                tally.drop(error.reason, where if error.found is None else f"{where}, {_short(error.found)}")
                continue
            tally.kept += 1
            yield episode
        referee.close()


def read_items(path: Path, tally: Tally) -> Iterator[Any]:
    """The items of a JSON list, or of values one after the other, as far as the text is JSON.

    Where it breaks off, the rest can't be told apart any more: that is counted, and what came before it is kept.
    """
    text = _text(path)
    decoder = json.JSONDecoder()
    at = _skip(text, 0)
    if at == len(text):
        raise ConfigError(f"{path} holds nothing but space; an LMRL-Gym file is a list of conversations")
    if text[at] not in "[{":
        raise ConfigError(f"{path} begins with {_short(text[at:])}; an LMRL-Gym file is a JSON list of conversations")
    listed = text[at] == "["
    at = _skip(text, at + 1) if listed else at
    number = 0
    while at < len(text) and not (listed and text[at] == "]"):
        try:
            item, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            line = text.count("\n", 0, at) + 1
            said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            tally.read += 1
            tally.drop(
                "not valid JSON from there to the end of the file", f"conversation {number}, line {line}: {said}"
            )
            return
        yield item
        number += 1
        at = _skip(text, at, separators=",")
    if listed and at == len(text):
        tally.read += 1
        tally.drop("the file ends before its list does", f"after conversation {number - 1}")


def _text(path: Path) -> str:
    try:
        raw = path.expanduser().read_bytes()
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        utf16 = " It looks like UTF-16." if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise ConfigError(
            f"{path} is not UTF-8 text: byte {error.start} (line {line}) is {raw[error.start]:#04x}.{utf16} "
            "Write it anew in UTF-8"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from None


def _skip(text: str, at: int, separators: str = "") -> int:
    while at < len(text) and (text[at].isspace() or text[at] in separators):
        at += 1
    return at


def _parts(item: Any) -> tuple[list[tuple[str, str]], bool, str]:
    """Questions and answers, whether the game was won, and the word. Raises Unfit."""
    if not isinstance(item, dict):
        raise Unfit("no conversation but something else", item)
    for key in ("conversation", "done", "word"):
        if key not in item:
            raise Unfit(f"no {key!r}", sorted(map(str, item)))
    turns, done, word = item["conversation"], item["done"], item["word"]
    if not isinstance(turns, list):
        raise Unfit("`conversation` is no list", turns)
    if not turns:
        raise Unfit("no turn in it")
    if not isinstance(done, bool):
        raise Unfit("`done` is neither true nor false", done)
    if not isinstance(word, str) or not word.strip():
        raise Unfit("`word` is no text", word)
    return [_turn(turn) for turn in turns], done, word


def _turn(turn: Any) -> tuple[str, str]:
    """Question and answer of "question? answer". Raises Unfit."""
    if not isinstance(turn, str):
        raise Unfit("a turn that is no text", turn)
    if not turn.strip():
        raise Unfit("an empty turn")
    if "?" not in turn:
        raise Unfit("a turn without a question mark", turn)
    try:
        turn.encode()
    except UnicodeEncodeError:
        raise Unfit("a turn with half a surrogate pair, which is no text", ascii(turn)) from None
    question, _, answer = turn.rpartition("?")
    if not answer.strip():  # the answer ends in a question mark of its own
        question, _, answer = turn.partition("?")
    # An action of ours is one line.
    question, answer = " ".join(question.split()), " ".join(answer.split())
    if not question:
        raise Unfit("a turn without a question", turn)
    if not answer:
        raise Unfit("a question without an answer", turn)
    return question + "?", answer


@dataclass
class _Referee:
    """The environment, which says what each question is worth."""

    env_id: str
    kwargs: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.env = envs.make(self.env_id, **self.kwargs)
        self.tells = _tells(self.env_id)

    def judge(self, number: int, turns: list[tuple[str, str]], done: bool, word: str) -> envs.Demonstration:
        """The episode that these turns are. Raises Unfit."""
        observation, task_id = self._hide(word)
        observations: list[envs.Observation] = [observation]
        rewards: list[float] = []
        terminated = truncated = False
        success: bool | None = False
        for turn, (question, answer) in enumerate(turns):
            if terminated:
                raise Unfit("it goes on after the right guess", turns[turn - 1][0])
            if truncated:
                raise Unfit(f"more turns than the {self.env.spec.max_turns} of the task", len(turns))
            _, reward, terminated, truncated, info = self.env.step(question)
            if done and not terminated and turn == len(turns) - 1:
                raise Unfit("said to be won, but its last question is no guess of the word", question)
            if not terminated and self.tells(word, answer):
                raise Unfit("an answer tells the word before it is guessed", answer)
            observations.append(answer)
            rewards.append(reward)
            success = info.get(envs.SUCCESS)
        return envs.Demonstration(
            env=self.env_id,
            task_id=task_id,
            seed=number,
            observations=observations,
            actions=[question for question, _ in turns],
            rewards=rewards,
            terminated=terminated,
            # One that breaks off is cut short, not lost.
            truncated=not terminated,
            success=bool(success),
        )

    def close(self) -> None:
        self.env.close()

    def _hide(self, word: str) -> tuple[envs.Observation, str]:
        try:
            observation, info = self.env.reset(seed=0, options={OPTIONS[self.env_id]: word.split(",")[0].strip()})
        except envs.EnvArgumentError:
            raise Unfit(f"`word` is none that {self.env_id} can hide", word) from None
        return observation, str(info.get(envs.TASK_ID, ""))


def _tells(env_id: str) -> Callable[[str, str], bool]:
    """Whether an answer tells the word, by what the environment holds to be its names."""
    if env_id != "guess_my_city":
        return lambda word, answer: word.split(",")[0].strip().casefold() in answer.casefold()
    from envs.guess_my_city import load_table
    from envs.guess_my_city.text_folding import fold

    cities = load_table().city_of_name
    return lambda word, answer: cities[fold(word.split(",")[0])].named_in(answer)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = " ".join(text.split())
    return ascii(text[:SHOWN]) + ("..." if len(text) > SHOWN else "")
