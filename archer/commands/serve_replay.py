"""`archer replay serve`: serve the episodes of a folder over Arrow Flight."""

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from archer.commands.arguments import Host, Port, Source
from archer.commands.terminal import plain_console
from archer.commands.token_file import TokenFile, open_token
from archer.errors import ConfigError


def serve_replay(
    source: Source,
    host: Host = "127.0.0.1",
    port: Port = 0,
    token_file: TokenFile = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PEM file with the certificate to show by TLS.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="PEM file with the certificate's key.")] = None,
) -> None:
    """Serve the episodes of a folder over Arrow Flight, protected by a token, until Ctrl-C.

    Without --token-file the token is random and in a file that is deleted at the end.
    """
    from archer.imports.conversations import archive_errors
    from buffer.config import FlightTls
    from buffer.flight.tls import read_identity
    from buffer.folder_server import served_folder

    if (tls_certificate is None) != (tls_key is None):
        raise ConfigError("TLS needs both --tls-certificate and --tls-key")
    console = plain_console()
    with tempfile.TemporaryDirectory(prefix="archer-token-") as own, archive_errors(source, str(source)):
        path = (token_file or Path(own) / "token").expanduser()
        identity, tls = None, ""
        if tls_certificate is not None:
            identity = read_identity(FlightTls(certificate=str(tls_certificate), key=str(tls_key)))
            tls = ", authority=PEM_FILE"
        with served_folder(source, host=host, port=port, token=open_token(path), identity=identity) as (server, counts):
            address = f"{host}:{server.port}"
            console.print(f"serving {counts.episodes:,} episodes ({counts.turns:,} turns) of {source} at {address}")
            console.print(f"token in {path}")
            console.print("in Python: from buffer import RemoteClient, SampleRequest")
            console.print(f"           token = open({str(path)!r}).read().strip()")
            console.print(f"           client = RemoteClient.at([{address!r}], token{tls})")
            console.print("           client.sample(SampleRequest(256)).episodes")
            console.print("press Ctrl-C to stop")
            with suppress(KeyboardInterrupt):  # Ctrl-C is the intended end.
                server.until_closed()
    console.print("stopped")
