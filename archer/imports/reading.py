"""Episodes from elsewhere: read from files or runs in the replay schema, and told again in this run's tokens.

Tokens mean nothing to another tokenizer, so what is imported is the conversation: its messages are rendered anew, and
log-probabilities and versions say that no policy of this run wrote them.
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
    paths: Iterable[str], *, env: str, asked: str = "`demonstrations.files`: "
) -> list[envs.Demonstration]:
    """Every episode of the files and folders `paths`, in order. Raises ConfigError.

    A path is an Arrow IPC file (such as a run's demonstrations.arrow) or a Parquet file of episodes, a folder that
    `archer demos` or `archer import` wrote, or a run folder, a checkpoint or a replay folder, of which the replay's log
    is read. `asked` is what errors begin with: the setting that named the paths.
    """
    found = []
    for text in paths:
        path = Path(text).expanduser()
        where = f"{asked}{text}"
        with readable(path, where):
            episodes = [episode for batch in read_archive(path) for episode in batch_to_episodes(batch)]
        if not episodes:
            raise ConfigError(f"{where} holds no episode")
        for episode in episodes:
            if episode.env != env:
                raise ConfigError(
                    f"{where} holds episodes of {episode.env!r} (such as {episode.episode_id}), and this run plays "
                    f"{env!r}"
                )
        found += [_conversation(episode, where) for episode in episodes]
    return found


def episodes_env(path: Path) -> str:
    """The environment that all episodes of a file or folder are of. Raises ConfigError."""
    with readable(path, str(path)):
        names = {name for batch in read_archive(path) for name in pc.unique(batch.column("env")).to_pylist()}
    if len(names) != 1:
        raise ConfigError(f"{path} holds episodes of {sorted(names) or 'no environment'}; choose one by --env")
    return str(names.pop())


@contextmanager
def readable(path: Path, where: str) -> Iterator[None]:
    """Errors of reading `path` as ConfigErrors that begin with `where`."""
    try:
        yield
    except FileNotFoundError as error:
        lacks = f"holds no {EPISODES_FILE} and no replay" if path.is_dir() else "does not exist"
        raise ConfigError(f"{where} {lacks}") from error
    except (ReplayError, OSError) as error:
        raise ConfigError(f"{where} can't be read as episodes: {error}") from error


def _conversation(episode: Episode, where: str) -> envs.Demonstration:
    """The messages of an episode as observations and actions. Raises ConfigError where there are too few."""
    observations: list[envs.Observation] = []
    actions: list[str] = []
    heard: list[envs.Message] = []
    for message in episode.messages:
        if message["role"] == "assistant":
            observations.append(_observation(heard))
            actions.append(message["content"])
            heard = []
        else:
            heard.append(envs.Message(role=message["role"], content=message["content"]))
    observations.append(_observation(heard))
    if len(actions) != episode.turns:
        raise ConfigError(
            f"{where}: episode {episode.episode_id} has {episode.turns} turns and {len(actions)} messages of the "
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
    )


def _observation(heard: list[envs.Message]) -> envs.Observation:
    """A lone message of the user is plain text, as environments give it."""
    if len(heard) == 1 and heard[0]["role"] == "user":
        return heard[0]["content"]
    return list(heard)
