"""`archer import`: episodes of others, turned into ours, with an account of what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from archer.commands.env_arguments import env_kwargs
from archer.commands.output_folder import claimed
from archer.errors import ConfigError
from archer.imports.episode_folder import load_tokenizer, print_written, write_episodes
from archer.imports.formats import find_format, format_of
from archer.imports.tally import Tally


def import_episodes(
    file: Path,
    *,
    format_name: str | None,
    env: str | None,
    out: Path,
    model: str | None = None,
    overrides: Sequence[str] = (),
    console: Console | None = None,
) -> None:
    """Read `file`, write the episodes that `env` could have played into `out`, and say what was dropped and why.

    Without `format_name` the path tells it, without `env` the episodes do, where they can.

    Raises ConfigError where an argument is wrong, where the file is none of the format, and where nothing is left.
    """
    chosen = format_of(file) if format_name is None else find_format(format_name)
    env = env or chosen.env_of(file)
    kwargs = env_kwargs(env, overrides)
    tokenizer = None if model is None else load_tokenizer(model)
    said = console or Console()
    tally = Tally()
    with claimed(out) as folder:
        demonstrations = list(chosen.read(file, env, kwargs, tally))
        text = f"read {tally.read:,} from {file} as {chosen.name}: kept {tally.kept:,}, dropped {tally.dropped:,}"
        for line in (text, *tally.lines()):
            said.print(line, soft_wrap=True, highlight=False, markup=False)
        if not demonstrations:
            raise ConfigError(f"{file} holds no episode of {env} that could be kept, so nothing was written")
        summary = {"env": env, "kwargs": kwargs, "source": str(file), "format": chosen.name, "read": tally.read}
        summary |= {"kept": tally.kept, "dropped": tally.reasons}
        figures = write_episodes(
            demonstrations, folder, tokenizer=tokenizer, summary=summary, worker="import", ids=f"{chosen.name}-{env}"
        )
        print_written(said, figures, folder)
