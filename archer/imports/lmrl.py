"""Import conversations of LMRL-Gym (Abdulhai et al. 2023).

A file is a JSON list (or lines) of {"conversation": ["question? answer", ...], "done": bool, "word": "paris,france"} or
{"lines": [...], "correct": bool, "word": ["Bathrobe", "robe"]} with synonyms. It may be compressed (gzip, zstd).
Each conversation becomes an episode. Its questions are replayed in the environment with the same hidden word; the
environment decides the reward of each turn and whether it ends the game. Answers keep the text of the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

import envs
from archer.errors import ConfigError
from archer.imports.json_items import Dropped, quoted, read_items

OPTIONS = {"guess_my_city": "city", "twenty_questions": "word", "twenty_questions_subset": "word"}
"""Environments whose episodes such a file can hold -> the reset option that sets the hidden word."""


class Conversation(BaseModel):
    """An item of a file."""

    model_config = ConfigDict(strict=True)

    conversation: list[str] = Field(min_length=1, validation_alias=AliasChoices("conversation", "lines"))
    done: bool = Field(validation_alias=AliasChoices("done", "correct"))
    word: (
        Annotated[str, Field(pattern=r"\S")]
        | Annotated[list[Annotated[str, Field(pattern=r"\S")]], Field(min_length=1)]
    )

    def names(self) -> list[str]:
        """Return the spellings under which an environment may know the word, the likeliest first."""
        given = self.word if isinstance(self.word, list) else [self.word.split(",")[0]]
        names = [name.strip() for name in given]
        return list(dict.fromkeys([*names, *(name.casefold() for name in names)]))


class Unfit(Exception):
    """An item cannot become an episode. The arguments are the reason, and the offending part of the item if known."""


def read_lmrl(path: Path, env: str, kwargs: Mapping[str, Any], dropped: Dropped) -> Iterator[envs.Demonstration]:
    """Yield the episodes of a file that the environment `env` with the arguments `kwargs` could have played.

    dropped: receives the reason and the place of each conversation that is not an episode.
    Raises ConfigError if the file cannot be read, or if `env` has no such episodes.
    """
    if env not in OPTIONS:
        raise ConfigError(f"--format lmrl is for {', '.join(OPTIONS)}; {env} has no conversations of this form")
    played, reveals = envs.make(env, **kwargs), _reveals(env)
    seen: set[str] = set()
    for number, item in enumerate(read_items(path, dropped)):
        try:
            conversation = _parse(item)
            turns = [_turn(turn) for turn in conversation.conversation]
            key = json.dumps([turns, conversation.word])
            if key in seen:
                raise Unfit("a duplicate of an earlier conversation")
            seen.add(key)
            episode = _replay(played, number, turns, conversation, reveals)
        except Unfit as error:
            reason, *found = error.args
            dropped.append((reason, ", ".join([f"conversation {number}", *map(quoted, found)])))
            continue
        yield episode
    played.close()


def _parse(item: Any) -> Conversation:
    """Return an item of the file. Raises Unfit."""
    try:
        return Conversation.model_validate(item)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = f"`{first['loc'][0]}`: {first['msg']}" if first["loc"] else "not a conversation"
        raise Unfit(reason, first["input"]) from None


def _turn(turn: str) -> tuple[str, str]:
    """Return question and answer of "question? answer". Raises Unfit."""
    if not turn.strip():
        raise Unfit("an empty turn")
    if "?" not in turn:
        raise Unfit("a turn without a question mark", turn)
    if any("\ud800" <= char <= "\udfff" for char in turn):
        raise Unfit("a turn with half a surrogate pair, which is not text", ascii(turn))
    question, _, answer = turn.rpartition("?")
    if not answer.strip():  # the answer itself ends with a question mark
        question, _, answer = turn.partition("?")
    # An action is one line.
    question, answer = " ".join(question.split()), " ".join(answer.split())
    if not question:
        raise Unfit("a turn without a question", turn)
    if not answer:
        raise Unfit("a question without an answer", turn)
    return question + "?", answer


def _replay(
    env: envs.TextEnv,
    seed: int,
    turns: list[tuple[str, str]],
    conversation: Conversation,
    reveals: Callable[[str, str], bool],
) -> envs.Demonstration:
    """Return the episode of these questions and answers. Raises Unfit."""
    for word in conversation.names():
        with suppress(envs.EnvArgumentError):
            observation, info = env.reset(seed=0, options={OPTIONS[env.spec.id]: word})
            break
    else:
        raise Unfit(f"`word` is unknown to {env.spec.id}", conversation.word)
    task_id = str(info.get(envs.TASK_ID, ""))
    observations: list[envs.Observation] = [observation]
    rewards: list[float] = []
    terminated = truncated = False
    for turn, (question, answer) in enumerate(turns):
        if terminated:
            raise Unfit("it continues after the correct guess", turns[turn - 1][0])
        if truncated:
            raise Unfit(f"more turns than the limit of {env.spec.max_turns}", len(turns))
        _, reward, terminated, truncated, info = env.step(question)
        if conversation.done and not terminated and turn == len(turns) - 1:
            raise Unfit("marked as won, but its last question does not guess the word", question)
        if not terminated and reveals(word, answer):
            raise Unfit("an answer reveals the word before it is guessed", answer)
        observations.append(answer)
        rewards.append(reward)
    return envs.Demonstration(
        env=env.spec.id,
        task_id=task_id,
        seed=seed,
        observations=observations,
        actions=[question for question, _ in turns],
        rewards=rewards,
        terminated=terminated,
        truncated=not terminated,  # A conversation that stops early is cut short, not lost.
        success=bool(info.get(envs.SUCCESS)),
    )


def _reveals(env_id: str) -> Callable[[str, str], bool]:
    """Return a function of (word, answer): whether the answer contains a name of the word."""
    if env_id != "guess_my_city":
        return lambda word, answer: word.casefold() in answer.casefold()
    from envs.guess_my_city import load_table
    from envs.guess_my_city.text_folding import fold

    cities = load_table().city_of_name
    return lambda word, answer: cities[fold(word)].named_in(answer)
