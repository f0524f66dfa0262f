"""`archer envs`: list the registered environments."""

import typer
from rich.text import Text

from archer.commands.terminal import plain_console


def list_envs(context: typer.Context) -> None:
    """List the environments; `archer envs serve` serves one of them."""
    if context.invoked_subcommand is not None:
        return
    from envs import missing_modules, specs

    rows = [("environment", "turns", "return", "needs")]
    for spec in specs():
        low, high = spec.reward_range
        needs = ""
        if spec.extra is not None:
            needs = f"{spec.extra} ({'not installed' if missing_modules(spec.extra) else 'installed'})"
        rows.append((spec.id, str(spec.max_turns), f"{low:g} to {high:g}", needs))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    # The description has a line of its own: in a column it would be wrapped, and `grep` would miss it.
    descriptions = ["", *(f"    {spec.description}" for spec in specs())]
    console = plain_console()
    for row, description in zip(rows, descriptions, strict=True):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        console.print(Text(line, style="" if description else "bold"))
        if description:
            console.print(Text(description, style="dim"))
