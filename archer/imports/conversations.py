"""Read the conversations of episodes that are stored in the replay schema.

Tokens depend on the tokenizer, so only the messages are imported: each run renders them in its own tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.compute as pc

import envs
from archer.errors import ConfigError
from buffer.archive import EPISODES_FILE, read_archive
from buffer.episodes.schema import Episode, batch_to_episodes
from buffer.errors import ReplayError


def read_imports(
    paths: Iterable[str], *, env: str, setting: str = "`demonstrations.files`: "
) -> list[envs.Demonstration]:
    """Return every episode of `paths`, in order; `buffer.archive.read_archive` lists the kinds of path.

    setting: the setting that named the paths, with which error messages begin.
    Raises ConfigError if a path cannot be read, holds no episode, or holds episodes of another environment.
    """
    found = []
    paths = list(paths)
    names = env_names(env) if paths else set()
    for text in paths:
        path = Path(text).expanduser()
        where = f"{setting}{text}"
        with archive_errors(path, where):
            episodes = [episode for batch in read_archive(path) for episode in batch_to_episodes(batch)]
        if not episodes:
            raise ConfigError(f"{where} holds no episode")
        for episode in episodes:
            if episode.env not in names:
                raise ConfigError(
                    f"{where} holds episodes of {episode.env!r} (such as {episode.episode_id}), but this run plays "
                    f"{env!r}"
                )
            found.append(_conversation(episode, where))
    return found


def env_names(env: str) -> set[str]:
    """Return the names under which episodes of an environment are stored: `module:Class` of a user, and its `spec.id`.

    An id that is not registered stands for itself: importing episodes does not need their environment.
    """
    try:
        return {env, envs.spec(env).id}
    except envs.UnknownEnvError:
        return {env}


def episodes_env(path: Path) -> str:
    """Return the environment of all episodes of a file or folder. Raises ConfigError if there are several."""
    with archive_errors(path, str(path)):
        names = {name for batch in read_archive(path) for name in pc.unique(batch.column("env")).to_pylist()}
    if len(names) != 1:
        raise ConfigError(f"{path} holds episodes of {sorted(names) or 'no environment'}; choose one with --env")
    return str(names.pop())


@contextmanager
def archive_errors(path: Path, where: str) -> Iterator[None]:
    """Raise errors of reading `path` as ConfigErrors that begin with `where`."""
    try:
        yield
    except FileNotFoundError as error:
        lacks = f"holds no {EPISODES_FILE} and no replay" if path.is_dir() else "does not exist"
        raise ConfigError(f"{where} {lacks}") from error
    except (ReplayError, OSError) as error:
        raise ConfigError(f"{where} cannot be read as episodes: {error}") from error


def _conversation(episode: Episode, where: str) -> envs.Demonstration:
    """Return the messages of an episode as observations and actions. Raises ConfigError if a turn has no message."""
    observations: list[envs.Observation] = []
    actions: list[str] = []
    pending: list[envs.Message] = []
    # An observation may hold messages of the assistant (few-shot examples). They come with the first one.
    examples = max(0, sum(message["role"] == "assistant" for message in episode.messages) - episode.turns)
    for message in episode.messages:
        if message["role"] == "assistant" and examples:
            examples -= 1
            pending.append(envs.Message(role=message["role"], content=message["content"]))
        elif message["role"] == "assistant":
            observations.append(_observation(pending))
            actions.append(message["content"])
            pending = []
        else:
            pending.append(envs.Message(role=message["role"], content=message["content"]))
    observations.append(_observation(pending))
    if len(actions) != episode.turns:
        raise ConfigError(
            f"{where}: episode {episode.episode_id} has {episode.turns} turns but {len(actions)} messages of the "
            "assistant; an import needs the conversation of every turn"
        )
    return envs.Demonstration(
        env=episode.env,
        task_id=episode.task_id,
        seed=episode.seed,
        observations=observations,
        actions=actions,
        rewards=[float(reward) for reward in episode.reward],
        terminated=episode.terminated,
        truncated=episode.truncated,
        success=episode.success,
        privileged=episode.privileged,
    )


def _observation(messages: list[envs.Message]) -> envs.Observation:
    """Return a single message of the user or of a tool as plain text, the form in which environments give it."""
    if len(messages) == 1 and messages[0]["role"] in ("user", "tool"):
        return messages[0]["content"]
    return messages
