"""`archer export`: write the episodes of a run's replay as Parquet."""

from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from archer.commands.arguments import Source
from archer.commands.output_folder import claimed
from archer.commands.terminal import plain_console


def export(
    source: Source,
    to: Annotated[Path, typer.Option(metavar="DIR", help="New folder for episodes.parquet.")],
) -> None:
    """Write the episodes of a run's replay as Parquet, also while the run is active."""
    from archer.imports.conversations import archive_errors
    from buffer import archive

    with archive_errors(source, str(source)), claimed(to, option="--to") as folder:
        wrote = archive.export(source, folder)
    console = plain_console()
    console.print(
        f"exported {wrote.episodes:,} episodes ({wrote.turns:,} turns, {decimal(wrote.bytes)}) from {source} to "
        f"{folder / archive.EPISODES_FILE}"
    )
    if wrote.repeated:
        console.print(f"skipped {wrote.repeated:,} episodes with an id that had already been exported")
