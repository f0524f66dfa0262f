"""Tables that the command line prints: environments, fields of the configuration."""

from rich.console import Console
from rich.text import Text


def print_envs(console: Console | None = None) -> None:
    """Every registered environment: turns, the range of its return, its extra and whether that is there, what it is."""
    from envs import missing_modules, specs

    out = console or Console(soft_wrap=True, highlight=False)
    rows = [("environment", "turns", "return", "needs")]
    for spec in specs():
        low, high = spec.reward_range
        needs = ""
        if spec.extra is not None:
            needs = f"{spec.extra} ({'not installed' if missing_modules(spec.extra) else 'installed'})"
        rows.append((spec.id, str(spec.max_turns), f"{low:g} to {high:g}", needs))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    descriptions = ["", *(spec.description for spec in specs())]
    for number, (row, description) in enumerate(zip(rows, descriptions, strict=True)):
        # In columns for people and for `grep`; beside them the sentence would only be squeezed.
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        out.print(Text(line, style="bold" if number == 0 else ""))
        if description:
            out.print(Text(f"    {description}", style="dim"))


def print_fields(console: Console | None = None) -> None:
    """Every field of the configuration: path and default on one line, what it may be and its meaning below."""
    from archer.config.fields import document
    from archer.config.models import RunConfig

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
