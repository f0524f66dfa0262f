"""`archer envs serve`: an environment served to others, by OpenEnv's protocol."""

import contextlib
from collections.abc import Sequence

from rich.console import Console

from archer.config.loading import parse_override


def serve_env(
    env_id: str, *, host: str, port: int, sessions: int, max_message_bytes: int, settings: Sequence[str]
) -> None:
    """Serve until Ctrl-C, which ends it cleanly. `settings` are arguments of the environment, KEY=VALUE each."""
    from envs import check
    from envs.extras import require_extra

    kwargs = dict(map(parse_override, settings))
    check(env_id, **kwargs)
    require_extra("openenv", "archer envs serve")
    from envs.adapters.openenv_served import EnvServer

    server = EnvServer(env_id, host=host, port=port, sessions=sessions, max_message_bytes=max_message_bytes, **kwargs)
    out = Console(highlight=False, soft_wrap=True)
    told = f"serving {env_id} at {server.address} to {sessions} sessions at once; Ctrl-C ends it"
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how this is meant to end
        server.run(lambda: out.print(told))
    out.print("stopped")
