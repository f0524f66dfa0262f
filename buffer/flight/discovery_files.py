"""Files by which a client outside Ray finds a running replay. Only their owner may read them.

directory/access.json              {"token"}, and with TLS {"authority", "name"} of `buffer.flight.tls.Trust`
directory/shard-0/endpoint.json    {"address"} of the shard's present process
"""

import json
import secrets
from pathlib import Path
from typing import Any

from buffer.atomic_files import write_atomic
from buffer.errors import ReplayError
from buffer.flight.tls import Trust

ACCESS_FILE = "access.json"
ENDPOINT_FILE = "endpoint.json"


def make_token(directory: Path, trust: Trust | None = None) -> str:
    """Write a new token for the replay in `directory`, and what its clients trust; return the token."""
    token = secrets.token_urlsafe(24)
    tls = {} if trust is None else {"authority": trust.authority.decode(), "name": trust.name}
    write_atomic(directory / ACCESS_FILE, json.dumps({"token": token, **tls}), mode=0o600)
    return token


def read_access(directory: Path) -> tuple[str, Trust | None]:
    """Return the token of the replay in `directory`, and what its clients trust. Raises ReplayError."""
    path = directory / ACCESS_FILE
    access = _read(path, "token")
    authority = access.get("authority")
    return str(access["token"]), None if authority is None else Trust(str(authority).encode(), access.get("name"))


def read_token(directory: Path) -> str:
    """Return the token of the replay in `directory`. Raises ReplayError."""
    return read_access(directory)[0]


def write_endpoint(directory: Path, address: str) -> None:
    """Publish the address of the shard with folder `directory`."""
    write_atomic(directory / ENDPOINT_FILE, json.dumps({"address": address}), mode=0o600)


def read_endpoint(directory: Path) -> str:
    """Return "host:port" of the shard with folder `directory`. Raises ReplayError."""
    return str(_read(directory / ENDPOINT_FILE, "address")["address"])


def _read(path: Path, name: str) -> dict[str, Any]:
    """Return the JSON object of a file, which has `name`."""
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict) or name not in found:
            raise ValueError(f"it has no {name!r}")
        return found
    except FileNotFoundError as error:
        raise ReplayError(f"{path} does not exist: no replay has run in this folder, or it was moved") from error
    except (OSError, ValueError) as error:
        raise ReplayError(f"{path} cannot be read: {error}") from error
