"""Files by which a client outside Ray finds a running replay. Only their owner may read them.

directory/access.json              {"token"}
directory/shard-0/endpoint.json    {"address"} of the shard's present process
"""

import json
import secrets
from pathlib import Path

from buffer.atomic_files import write_atomic
from buffer.errors import ReplayError

ACCESS_FILE = "access.json"
ENDPOINT_FILE = "endpoint.json"


def make_token(directory: Path) -> str:
    """Write and return a new token for the replay in `directory`."""
    token = secrets.token_urlsafe(24)
    write_atomic(directory / ACCESS_FILE, json.dumps({"token": token}), mode=0o600)
    return token


def read_token(directory: Path) -> str:
    """Return the token of the replay in `directory`. Raises ReplayError."""
    return _read(directory / ACCESS_FILE, "token")


def write_endpoint(directory: Path, address: str) -> None:
    """Publish the address of the shard with folder `directory`."""
    write_atomic(directory / ENDPOINT_FILE, json.dumps({"address": address}), mode=0o600)


def read_endpoint(directory: Path) -> str:
    """Return "host:port" of the shard with folder `directory`. Raises ReplayError."""
    return _read(directory / ENDPOINT_FILE, "address")


def _read(path: Path, name: str) -> str:
    try:
        return str(json.loads(path.read_text())[name])
    except FileNotFoundError as error:
        raise ReplayError(f"{path} does not exist: no replay has run in this folder, or it was moved") from error
    except (OSError, ValueError, KeyError) as error:
        raise ReplayError(f"{path} cannot be read: {error}") from error
