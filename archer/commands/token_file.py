"""The token of an endpoint that a command serves: in a file, because command lines and terminals have other readers."""

import os
import secrets
import stat
from pathlib import Path
from typing import Annotated

import typer

from archer.errors import ConfigError

SHORTEST = 16
"""Least length of a token, in characters: shorter ones can be guessed."""

TokenFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="File with the token that every request must carry; made, with a random token, if it does not exist.",
    ),
]


def open_token(path: Path) -> str:
    """Return the token in a file that only its owner may read; make the file with a random token if there is none.

    Raises ConfigError if the file cannot be read or made, if others may read it, or if its token is too short.
    """
    path = path.expanduser()
    try:
        if not path.exists():
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(24) + "\n")
        with path.open(encoding="utf-8") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
                raise ConfigError(f"--token-file: others may read {path}; make a new token, after chmod 600 {path}")
            token = file.read(10_000).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file: {path} cannot be read or made ({error})") from None
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"--token-file: {path} holds no token; write {SHORTEST} or more ASCII characters without spaces, or delete "
            "it for a random one"
        )
    return token
