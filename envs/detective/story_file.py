"""Checks that the user's story file exists and is that of Detective."""

from __future__ import annotations

import hashlib
from pathlib import Path

from envs.errors import EnvArgumentError

MD5 = "822655c9be83e292e06d3d3b1d6a9734"
"""MD5 of detective.z5, release 1, serial number 000715, the release whose score and end jericho can read."""

_HEADER_BYTES = 64
_VERSIONS = range(1, 9)


def check_story(env_id: str, story: str | None) -> None:
    """Raise EnvArgumentError, with the remedy, unless `story` is the path of the story file of Detective."""
    if not story:
        raise EnvArgumentError(
            f"{env_id} plays a story file of your own: give its path as the argument story (env.kwargs.story=PATH)"
        )
    path = Path(story).expanduser()
    if not path.is_file():
        raise EnvArgumentError(
            f"{env_id}: the story file {story} {'is not a file' if path.exists() else 'does not exist'}"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EnvArgumentError(f"{env_id}: the story file {story} cannot be read: {error.strerror}") from error
    if len(data) < _HEADER_BYTES or data[0] not in _VERSIONS:
        raise EnvArgumentError(f"{env_id}: {story} is not a Z-machine story file, such as detective.z5")
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != MD5:
        raise EnvArgumentError(
            f"{env_id}: {story} is a story file, but not that of Detective, release 1, serial number 000715, "
            "the only release whose score can be read"
        )
