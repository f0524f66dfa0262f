"""`archer record`: record scripted episodes of an environment."""

from typing import Annotated

import typer

from archer.commands.arguments import EnvId, EnvOverrides, Out, Seed, Skill, Tokenizer, env_kwargs
from archer.commands.output_folder import claimed
from archer.commands.terminal import plain_console
from archer.errors import ConfigError


def record(
    env: EnvId,
    out: Out,
    episodes: Annotated[int, typer.Option(min=1, help="Number of episodes.")] = 100,
    skill: Skill = 0.5,
    seed: Seed = 0,
    model: Tokenizer = None,
    overrides: EnvOverrides = None,
) -> None:
    """Record scripted episodes of an environment, in the replay schema (for `demonstrations.files`)."""
    import envs
    from archer.imports.episode_folder import load_tokenizer, write_episodes

    kwargs = env_kwargs(env, overrides)
    try:
        played = envs.demonstrate(env, episodes=episodes, skill=skill, seed=seed, **kwargs)
    except envs.EnvArgumentError as error:
        raise ConfigError(f"--set: {error}") from None
    tokenizer = load_tokenizer(model)
    summary = {"env": env, "kwargs": kwargs, "skill": skill, "seed": seed}
    with claimed(out) as folder:
        report = write_episodes(list(played), folder, tokenizer=tokenizer, summary=summary)
    plain_console().print(report)
