"""`archer top`: the figures of a run in a terminal."""

from contextlib import suppress
from typing import Annotated

import typer
from rich.console import Console

from archer.commands.arguments import RunPath


def top(
    run: RunPath,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print the figures once and end.")] = False,
) -> None:
    """Show the figures of a run while it is active, or those of a run that ended."""
    from archer.viewer.top import watch

    with suppress(KeyboardInterrupt):  # Ctrl-C is the intended end.
        watch(run, Console(highlight=False), every_s=every, once=once)
