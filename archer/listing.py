"""Tables that the command line prints: environments, fields of the configuration."""

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_envs(console: Console | None = None) -> None:
    """Every registered environment: what it is, turns, the range of its return, its extra and whether that is there."""
    from envs import missing_modules, specs

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("environment", "turns", "return", "needs", ""):
        table.add_column(column, no_wrap=bool(column))
    for spec in specs():
        low, high = spec.reward_range
        needs = ""
        if spec.extra is not None:
            needs = f"{spec.extra} ({'not installed' if missing_modules(spec.extra) else 'installed'})"
        table.add_row(spec.id, str(spec.max_turns), f"{low:g} to {high:g}", needs, spec.description)
    (console or Console()).print(table)


def print_fields(console: Console | None = None) -> None:
    """Every field of the configuration: path and default on one line, what it may be and its meaning below."""
    from archer.config import RunConfig
    from archer.fields import document

    out = console or Console(soft_wrap=True, highlight=False)
    for doc in document(RunConfig):
        head = Text(doc.path, style="bold")
        if not doc.section:
            head.append(f"  {doc.default}", style="cyan")
            head.append(f"  ({doc.allowed})" if doc.allowed else "", style="dim")
        elif doc.default:
            head.append(f"  {doc.default}", style="cyan")
        out.print(head)
        out.print(Text(f"    {doc.description}"))
