"""`archer import`: convert episodes of other projects to the replay schema."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from archer.commands.arguments import EnvOverrides, Out, Tokenizer, env_kwargs
from archer.commands.output_folder import claimed
from archer.commands.terminal import plain_console
from archer.errors import ConfigError


def import_episodes(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to read.")],
    env: Annotated[str, typer.Option(help="Environment id of the episodes.")],
    out: Out,
    format_name: Annotated[Literal["lmrl"], typer.Option("--format", help="Format of the file.")] = "lmrl",
    model: Tokenizer = None,
    overrides: EnvOverrides = None,
) -> None:
    """Convert episodes of other projects to the replay schema; report how many were dropped, and why."""
    from archer.imports.episode_folder import load_tokenizer, write_episodes
    from archer.imports.import_counts import ImportCounts
    from archer.imports.lmrl import read_lmrl

    kwargs = env_kwargs(env, overrides)
    tokenizer = load_tokenizer(model)
    counts = ImportCounts()
    console = plain_console()
    with claimed(out) as folder:
        demonstrations = list(read_lmrl(file, env, kwargs, counts))
        dropped = counts.reasons.total()
        console.print(f"read {counts.read:,} from {file} as {format_name}: kept {counts.kept:,}, dropped {dropped:,}")
        for line in counts.lines():
            console.print(line)
        if not demonstrations:
            raise ConfigError(f"{file} holds no usable episode of {env}; nothing was written")
        summary = {"env": env, "kwargs": kwargs, "source": str(file), "format": format_name, "read": counts.read}
        summary |= {"kept": counts.kept, "dropped": counts.reasons}
        ids = f"{format_name}-{env}"
        report = write_episodes(demonstrations, folder, tokenizer=tokenizer, summary=summary, imported=ids)
    console.print(report)
