"""`archer import`: convert episodes of other projects to the replay schema."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from archer.commands.arguments import EnvOverrides, Out, Tokenizer, env_kwargs
from archer.commands.output_folder import claimed
from archer.commands.terminal import plain_console
from archer.errors import ConfigError


def import_episodes(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File or folder to read.")],
    out: Out,
    format_name: Annotated[
        Literal["lmrl", "arrow", "parquet", "run"] | None,
        typer.Option("--format", help="Format of the file; by default the path decides, where it can."),
    ] = None,
    env: Annotated[
        str | None, typer.Option(help="Environment id of the episodes; required if the file does not name it.")
    ] = None,
    model: Tokenizer = None,
    overrides: EnvOverrides = None,
) -> None:
    """Convert episodes of other projects to the replay schema; report how many were dropped, and why."""
    from archer.imports.episode_folder import load_tokenizer, write_episodes
    from archer.imports.formats import READERS, env_of, format_of
    from archer.imports.import_counts import ImportCounts

    chosen = format_name or format_of(file)
    env = env or env_of(file, chosen)
    kwargs = env_kwargs(env, overrides)
    tokenizer = None if model is None else load_tokenizer(model)
    counts = ImportCounts()
    console = plain_console()
    with claimed(out) as folder:
        demonstrations = list(READERS[chosen](file, env, kwargs, counts))
        console.print(f"read {counts.read:,} from {file} as {chosen}: kept {counts.kept:,}, dropped {counts.dropped:,}")
        for line in counts.lines():
            console.print(line)
        if not demonstrations:
            raise ConfigError(f"{file} holds no usable episode of {env}; nothing was written")
        summary = {"env": env, "kwargs": kwargs, "source": str(file), "format": chosen, "read": counts.read}
        summary |= {"kept": counts.kept, "dropped": counts.reasons}
        report = write_episodes(
            demonstrations, folder, tokenizer=tokenizer, summary=summary, worker="import", ids=f"{chosen}-{env}"
        )
    console.print(report)
