"""`archer view`: serve the page that shows runs and their episodes."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from archer.commands.arguments import Host
from archer.commands.terminal import plain_console
from archer.commands.token_file import TokenFile, open_token


def view(
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="Folder of runs, or of one run.")] = Path("runs"),
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 chooses a free port.")] = 8420,
    token_file: TokenFile = None,
    browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Show runs, their curves and their episodes on a local web page, also while they are active, until Ctrl-C."""
    import webbrowser

    from archer.viewer.serve import serve

    console = plain_console()
    token = None if token_file is None else open_token(token_file)

    def ready(address: str, count: int) -> None:
        console.print(f"showing {count} {'run' if count == 1 else 'runs'} of {runs} at {address}")
        console.print("press Ctrl-C to stop")
        if browser:
            webbrowser.open(address)

    with suppress(KeyboardInterrupt):  # Ctrl-C is the intended end.
        serve(runs.expanduser(), host=host, port=port, token=token, ready=ready)
    console.print("stopped")
