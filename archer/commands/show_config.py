"""`archer config`: check a configuration and print it, or list every field."""

from typing import Annotated

import typer
from rich.text import Text

from archer.commands.arguments import Config, Overrides
from archer.commands.terminal import plain_console
from archer.errors import ConfigError


def show_config(
    config: Config = None,
    overrides: Overrides = None,
    fields: Annotated[bool, typer.Option("--fields", help="List every field with its default and meaning.")] = False,
) -> None:
    """Check a configuration and print it in full."""
    if fields:
        _print_fields()
        return
    from archer.config.loading import dump_config, load_config
    from archer.config.presets import presets

    if config is None:
        raise ConfigError(f"archer config needs a file or a preset: {', '.join(sorted(presets())) or 'none found'}")
    typer.echo(dump_config(load_config(config, overrides or [])), nl=False)


def _print_fields() -> None:
    """Print two lines for each field: path, default and allowed values; then its meaning."""
    from archer.config.fields import fields

    console = plain_console()
    for field in fields().values():
        line = Text(field.path, style="bold")
        line.append(f"  {field.default}" if field.default else "", style="cyan")
        line.append(f"  ({field.allowed})" if field.allowed and not field.section else "", style="dim")
        console.print(line)
        console.print(Text(f"    {field.description}"))
