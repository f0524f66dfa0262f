"""`archer envs serve`: serve an environment by OpenEnv's protocol."""

from contextlib import suppress
from typing import Annotated

import typer

from archer.commands.arguments import PREFIX, EnvId, Host, Port, env_kwargs
from archer.commands.terminal import plain_console
from archer.commands.token_file import TokenFile, open_token
from archer.errors import ConfigError


def serve_env(
    env: EnvId,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    sessions: Annotated[int, typer.Option(min=1, help="Concurrent sessions; the server refuses more.")] = 64,
    token_file: TokenFile = None,
    max_message: Annotated[int, typer.Option(min=1, metavar="KB", help="Longest message accepted, in kB.")] = 4096,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Argument of the environment; may be repeated."),
    ] = None,
) -> None:
    """Serve an environment by OpenEnv's protocol, over WebSocket and HTTP, until Ctrl-C.

    On another address than loopback every request must carry the token of --token-file.
    """
    from envs.extras import require_extra

    kwargs = env_kwargs(env, [f"{PREFIX}{setting}" for setting in settings or ()])
    require_extra("openenv", "archer envs serve")
    from envs.adapters.asgi_middleware import is_loopback
    from envs.adapters.openenv_served import EnvServer

    if token_file is None and not is_loopback(host):
        raise ConfigError(f"--host {host} accepts other machines, so it needs a token: give --token-file FILE")
    token = None if token_file is None else open_token(token_file)
    limit = max_message * 1000
    server = EnvServer(env, host=host, port=port, sessions=sessions, max_message_bytes=limit, token=token, **kwargs)
    console = plain_console()
    with_token = "" if token_file is None else f", with the token in {token_file}"
    line = (
        f"serving {env} at {server.address} to at most {sessions} concurrent sessions{with_token}; press Ctrl-C to stop"
    )
    with suppress(KeyboardInterrupt):  # Ctrl-C is the intended end.
        server.run(lambda: console.print(line))
    console.print("stopped")
