"""`archer import`: convert episodes of other projects to the replay schema."""

from collections import Counter
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
    from archer.imports.conversations import episodes_env, read_imports
    from archer.imports.episode_folder import load_tokenizer, write_episodes
    from archer.imports.json_items import Dropped
    from archer.imports.lmrl import read_lmrl

    format_name = format_name or _format_of(file)
    if env is None and format_name == "lmrl":
        raise ConfigError(f"{file} does not name the environment of its episodes; give --env")
    env = env or episodes_env(file)
    # Only conversations of LMRL-Gym are played again; other episodes may be of an environment that is not installed.
    kwargs = env_kwargs(env, overrides) if format_name == "lmrl" or overrides else {}
    tokenizer = load_tokenizer(model)
    dropped: Dropped = []
    console = plain_console()
    with claimed(out) as folder:
        if format_name == "lmrl":
            demonstrations = list(read_lmrl(file, env, kwargs, dropped))
        else:
            demonstrations = read_imports([str(file)], env=env, setting="")
        kept, read = len(demonstrations), len(demonstrations) + len(dropped)
        console.print(f"read {read:,} from {file} as {format_name}: kept {kept:,}, dropped {len(dropped):,}")
        reasons, first = Counter(reason for reason, _ in dropped), dict(reversed(dropped))
        width = len(f"{max(reasons.values(), default=0):,}")
        for reason, count in reasons.most_common():
            console.print(f"{count:>{width},}  {reason} (first: {first[reason]})")
        if not demonstrations:
            raise ConfigError(f"{file} holds no usable episode of {env}; nothing was written")
        summary = {"env": env, "kwargs": kwargs, "source": str(file), "format": format_name, "read": read}
        summary |= {"kept": kept, "dropped": reasons}
        ids = f"{format_name}-{env}"
        report = write_episodes(demonstrations, folder, tokenizer=tokenizer, summary=summary, imported=ids)
    console.print(report)


def _format_of(path: Path) -> Literal["lmrl", "arrow", "parquet", "run"]:
    """Return the format that the path implies. Raises ConfigError if it implies none."""
    if path.is_dir():
        return "run"
    if path.suffix in (".arrow", ".arrows", ".feather", ".ipc"):
        return "arrow"
    if path.suffix == ".parquet":
        return "parquet"
    raise ConfigError(f"the name of {path} does not show its format; give --format")
