"""How others find a running replay: its token and its shards' endpoints, in files that only the owner may read.

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
    """A new token, which only requests that carry it will pass."""
    token = secrets.token_urlsafe(24)
    _write(directory / ACCESS_FILE, {"token": token})
    return token


def read_token(directory: Path) -> str:
    """The token of the replay in a folder. Raises ReplayError."""
    return _read(directory / ACCESS_FILE, "token")


def write_endpoint(directory: Path, address: str) -> None:
    """Say where the shard that keeps `directory` answers now."""
    _write(directory / ENDPOINT_FILE, {"address": address})


def read_endpoint(directory: Path) -> str:
    """host:port of the shard that keeps `directory`. Raises ReplayError."""
    return _read(directory / ENDPOINT_FILE, "address")


def _write(path: Path, content: dict[str, str]) -> None:
    write_atomic(path, json.dumps(content), mode=0o600)


def _read(path: Path, name: str) -> str:
    try:
        return str(json.loads(path.read_text())[name])
    except FileNotFoundError as error:
        raise ReplayError(f"{path} does not exist: no replay has run in this folder, or it was moved") from error
    except (OSError, ValueError, KeyError) as error:
        raise ReplayError(f"{path} cannot be read: {error}") from error
