"""`archer replay serve`: serve the episodes of a folder over Arrow Flight."""

import secrets
from contextlib import suppress
from typing import Annotated

import typer

from archer.commands.arguments import Host, Port, Source
from archer.commands.terminal import plain_console


def serve_replay(
    source: Source,
    host: Host = "127.0.0.1",
    port: Port = 0,
    token: Annotated[str | None, typer.Option(help="Token that every request must carry; random by default.")] = None,
) -> None:
    """Serve the episodes of a folder over Arrow Flight, protected by the printed token, until Ctrl-C."""
    from archer.imports.conversations import archive_errors
    from buffer.folder_server import served_folder

    console = plain_console()
    token = token or secrets.token_urlsafe(24)
    with (
        archive_errors(source, str(source)),
        served_folder(source, host=host, port=port, token=token) as (server, counts),
    ):
        address = f"{host}:{server.port}"
        console.print(f"serving {counts.episodes:,} episodes ({counts.turns:,} turns) of {source} at {address}")
        console.print(f"token {token}")
        console.print("in Python: from buffer import RemoteClient, SampleRequest")
        console.print(f"           RemoteClient.at([{address!r}], {token!r}).sample(SampleRequest(256)).episodes")
        console.print("press Ctrl-C to stop")
        with suppress(KeyboardInterrupt):  # Ctrl-C is the intended end.
            server.until_closed()
    console.print("stopped")
