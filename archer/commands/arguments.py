"""Command-line arguments that several commands share, and the check of an environment's arguments."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from archer.errors import ConfigError

PREFIX = "env.kwargs."

Config = Annotated[str | None, typer.Argument(metavar="CONFIG", help="YAML file, or the name of a preset.")]
EnvId = Annotated[str, typer.Argument(metavar="ENV", help="Environment id; `archer envs` lists the ids.")]
Source = Annotated[
    Path, typer.Argument(metavar="SOURCE", help="Run folder, checkpoint, replay folder, or file of episodes.")
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, such as runs/demo.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="New folder for the episodes.")]
Seed = Annotated[int, typer.Option(min=0, help="Environment seed of the first episode.")]
Skill = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Skill of the scripted player, from 0 (random) to 1 (its best).")
]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 accepts other machines.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 chooses a free port.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Settings to change, such as learner.critic.lr=1e-4."),
]
EnvOverrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar=f"{PREFIX}NAME=VALUE", help="Argument of the environment; may be repeated."),
]
Tokenizer = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Model folder or Hugging Face name whose tokenizer encodes the episodes. The default trains a tokenizer.",
    ),
]


def env_kwargs(env: str, overrides: Sequence[str] | None) -> dict[str, Any]:
    """Return the environment's arguments that `--set env.kwargs.NAME=VALUE` gives. Raises ConfigError."""
    import envs
    from archer.config.overrides import parse_override, set_key

    tree: dict[str, Any] = {}
    for text in overrides or ():
        key, value = parse_override(text)
        if not key.startswith(PREFIX):
            raise ConfigError(f"--set {text!r} has no effect here; only {PREFIX}NAME=VALUE can be set")
        set_key(tree, key, value, text)
    kwargs = tree["env"]["kwargs"] if tree else {}
    try:
        envs.check(env, **kwargs)
    except envs.UnknownEnvError as error:
        raise ConfigError(str(error)) from None
    except envs.EnvArgumentError as error:
        raise ConfigError(f"--set: {error}") from None
    return kwargs
