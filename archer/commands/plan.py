"""`archer plan`: where each process of a run goes and what memory it needs."""

from typing import Annotated

import typer

from archer.commands.arguments import Config, Overrides
from archer.commands.terminal import plain_console
from archer.errors import ConfigError


def plan(
    config: Config = None,
    overrides: Overrides = None,
    nodes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COUNT:cpu=N,gpu=N,gpu_gib=N,host_gib=N",
            help="Nodes of the cluster; may be repeated. By default as many nodes of eight 80 GiB GPUs as needed.",
        ),
    ] = None,
    parameters: Annotated[
        float | None, typer.Option(help="Size of a model whose configuration cannot be had, such as 7e9.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=16, help="Tokens of an episode; the default is the engine's window, the most.")
    ] = None,
) -> None:
    """Show where each process goes and what memory it needs, without a GPU and without Ray."""
    from archer.config.loading import load_config
    from archer.planning.placement import read_nodes

    if config is None:
        raise ConfigError("archer plan needs a configuration: archer plan CONFIG")
    resolved = load_config(config, overrides or [])
    given = read_nodes(nodes or [])
    from archer.planning.plan import make_plan  # imports torch
    from archer.planning.report import print_plan

    print_plan(make_plan(resolved, given, parameters=parameters, tokens=tokens), plain_console())
