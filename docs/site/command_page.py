"""Return docs/commands.md, the reference of the command line, from the commands that `archer` registers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from archer.cli import app

_HEAD = """# Commands

`make docs` writes this page from the code. `archer COMMAND --help` prints the same.

A `CONFIG` is the path of a YAML file or the name of a preset. `KEY=VALUE` changes one setting; the
[configuration reference](configuration.md) lists all of them.

Exit status: 0 for success, 2 for bad input, 1 for a failed run, 130 after Ctrl-C, 143 after SIGTERM. An error is one
sentence for each mistake, on standard error.
"""


def command_page() -> str:
    """Return the text of the page."""
    root = typer.main.get_command(app)
    context = typer.Context(root, info_name="archer")
    return _HEAD + "".join(_sections(root, context))


def _sections(command: Any, context: Any) -> Iterator[str]:
    """Return a section for each command below `command` that can be run by itself."""
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        inner = typer.Context(found, info_name=name, parent=context)
        if not hasattr(found, "list_commands") or found.invoke_without_command:
            yield _section(found, inner)
        if hasattr(found, "list_commands"):
            yield from _sections(found, inner)


def _section(command: Any, context: Any) -> str:
    group = hasattr(command, "list_commands")
    usage = re.sub("[{}]", "", " ".join([] if group else command.collect_usage_pieces(context)))
    parts = [
        f"\n## `{context.command_path}`\n\n{command.help}\n\n```\n{context.command_path} {usage}".rstrip(),
        "\n```\n",
    ]
    records = [record for record in (found.get_help_record(context) for found in command.params) if record]
    if records:
        parts.append("\n| argument or option | meaning |\n| --- | --- |\n")
        parts += [f"| `{_cell(_name(name))}` | {_cell(text)} |\n" for name, text in records]
    return "".join(parts)


def _name(text: str) -> str:
    """Return the name of an argument or option without the type of a text, and with a letter for a number."""
    text = re.sub(r" <(list\[str\]|str|path)>", "", text)
    return text.replace("<int range>", "N").replace("<float range>", "X")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
