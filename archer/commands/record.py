"""`archer demos`: scripted episodes of an environment, written in the replay schema."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

import envs
from archer.commands.env_arguments import env_kwargs
from archer.commands.output_folder import claimed
from archer.errors import ConfigError
from archer.imports.episode_folder import load_tokenizer, print_written, write_episodes


def write_demos(
    env: str,
    *,
    episodes: int,
    skill: float,
    seed: int,
    out: Path,
    model: str | None = None,
    overrides: Sequence[str] = (),
    console: Console | None = None,
) -> None:
    """Play `episodes` scripted episodes with environment seeds from `seed` on, and write them into `out`.

    Raises ConfigError before anything is played, and the environment's errors.
    """
    kwargs = env_kwargs(env, overrides)
    try:
        played = envs.demonstrate(env, episodes=episodes, skill=skill, seed=seed, **kwargs)
    except envs.EnvArgumentError as error:
        raise ConfigError(f"--set: {error}") from None
    tokenizer = None if model is None else load_tokenizer(model)
    summary = {"env": env, "kwargs": kwargs, "skill": skill, "seed": seed}
    with claimed(out) as folder:
        figures = write_episodes(list(played), folder, tokenizer=tokenizer, summary=summary)
        print_written(console or Console(), figures, folder)
