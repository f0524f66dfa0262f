"""`archer export` and `archer replay serve`: a run's episodes as one file, or open to a notebook."""

import contextlib
import secrets
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal

from archer.commands.output_folder import claimed
from archer.imports.reading import readable
from buffer.archive import EPISODES_FILE, export
from buffer.folder_server import served_folder


def export_episodes(source: Path, *, to: Path) -> None:
    """Write every episode of a run, a replay or a file of episodes into a new folder. Raises ConfigError."""
    with readable(source, str(source)), claimed(to, option="--to") as folder:
        wrote = export(source, folder)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(
        f"exported {wrote.episodes:,} episodes ({wrote.turns:,} turns, {decimal(wrote.bytes)}) of {source} to "
        f"{folder / EPISODES_FILE}"
    )
    if wrote.repeated:
        console.print(f"left out {wrote.repeated:,} episodes whose id had come before")


def serve_replay(source: Path, *, host: str, port: int, token: str | None) -> None:
    """Serve the episodes of a folder until Ctrl-C. Raises ConfigError, ReplayError."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    token = token or secrets.token_urlsafe(24)
    with readable(source, str(source)), served_folder(source, host=host, port=port, token=token) as (server, counts):
        address = f"{host}:{server.port}"
        console.print(f"serving {counts.episodes:,} episodes ({counts.turns:,} turns) of {source} at {address}")
        console.print(f"token {token}")
        console.print("in Python: from buffer import RemoteClient, SampleRequest")
        console.print(f"           RemoteClient.at([{address!r}], {token!r}).sample(SampleRequest(256)).episodes")
        console.print("Ctrl-C ends it")
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how this is meant to end
            server.until_closed()
    console.print("stopped")
